"""Batches and covariates as they are stored."""

import pytest

from unmix._adata.conditions import stored_conditions


@pytest.mark.parametrize("spoiled", [5, {}, {"covariates": 3}, {"batch_key": "a", "batches": 4}])
def test_spoiled_conditions_are_refused(spoiled):
    with pytest.raises(ValueError, match="run the tool again"):
        stored_conditions(spoiled)
