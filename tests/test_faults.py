"""An error or interrupt at any step leaves an AnnData as it was; a process that is killed leaves the old file or the new."""

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
