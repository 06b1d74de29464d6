"""An error or interrupt at any step leaves an AnnData as it was; a process that is killed leaves the old file or the new."""

import warnings

import anndata as ad
import numpy as np
import pytest

import unmix as um
from tests.fuzz.judge import difference, fingerprint
from tests.injection import Injected, Steps
from unmix._adata.write import Slots, write

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
