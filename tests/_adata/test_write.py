"""Storing: every value a tool may produce survives h5ad and zarr; names are kept apart."""

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unmix as um
from unmix._adata.keys import column_names
from unmix._adata.write import Slots, storable, write


@dataclass(frozen=True)
class Point:
    x: float
    names: tuple


VALUES = {
    "none": None,
    "tuple": (1, 2.5),
    "set": {"b", "a"},
    "path": Path("folder/file.csv"),
    "generator": np.random.default_rng(0),
    "int keys": {1: "a", 2: {"b/c": 3}},
    "ragged": [[1, 2], [3]],
    "dicts": [{"a": 1}, {"b": 2}],
    "function": column_names,
    "dtype": np.dtype("f4"),
    "dataclass": Point(1.0, ("a", "b")),
    "objects": np.array(["a", None], dtype=object),
    "table": pd.DataFrame({"a/b": ["x", None], "c": [1, 2]}),
    "anndata": ad.AnnData(np.ones((2, 3))),
    "scalars": [np.float32(1), np.int64(2), True],
    "empty": [],
    "slashes": {"a/b": 1, "a_b": 2},
}


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning", "ignore:.*Zarr format 3 specification:UserWarning")
def test_every_kind_of_value_can_be_stored(tmp_path, suffix):
    adata = ad.AnnData(np.ones((2, 3)))
    write(adata, Slots(uns={"key": VALUES}))
    getattr(adata, f"write_{suffix}")(tmp_path / f"x.{suffix}")
    back = getattr(ad, f"read_{suffix}")(tmp_path / f"x.{suffix}").uns["key"]
    assert set(VALUES) - {"none"} <= set(back)
    assert list(back["set"]) == ["a", "b"]
    assert back["slashes"] == {"a_b_2": 1, "a_b": 2}
    assert list(back["table"].columns) == ["a_b", "c"]


@given(st.lists(st.text(alphabet="ab/_2", min_size=1, max_size=5), unique=True, max_size=8))
def test_stored_names_are_unique_and_free_of_slashes(names):
    stored = column_names(names)
    assert len(set(stored)) == len(names)
    assert not any("/" in name for name in stored)
    assert all(new == old for new, old in zip(stored, names, strict=True) if "/" not in old)


def test_storing_is_idempotent():
    once = storable({"a/b": (1, {"c": [None, "x"]})})
    assert storable(once) == once


def result(**slots):
    return Slots(uns={"fit": {"params": {}}}, **slots)


def test_what_an_earlier_result_under_the_key_has_left_is_removed(tmp_path):
    adata = ad.AnnData(np.ones((2, 3)), obs={"fit_mine": [1, 2]})
    write(adata, result(obs={"fit_pval": [0.1, 0.2]}, obsm={"X_fit": np.ones((2, 2)), "fit_se": np.ones((2, 2))}))
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    write(adata, result(obsm={"X_fit": np.zeros((2, 1))}, varm={"fit": np.ones((3, 1))}))
    assert list(adata.obs) == ["fit_mine"]
    assert list(adata.obsm) == ["X_fit"]
    assert adata.obsm["X_fit"].shape == (2, 1)


def test_what_another_result_claims_stays_and_a_result_without_slots_goes():
    adata = ad.AnnData(np.ones((2, 3)))
    layer = {"fit_denoised": np.ones((2, 3))}
    write(adata, result(layers=layer))
    write(adata, Slots(uns={"fit_denoised": {"params": {}}}, layers=layer))
    write(adata, result(obs={"fit_nll": [1.0, 2.0]}))
    assert [name for name in adata.layers if name] == ["fit_denoised"]  # anndata 0.13 lists X as None
    write(adata, result(layers=layer))
    assert list(adata.uns) == ["fit"]


def test_what_would_be_removed_stays_when_writing_fails():
    adata = ad.AnnData(np.ones((2, 3)))
    write(adata, result(obs={"fit_pval": [0.1, 0.2]}, obsm={"fit_se": np.ones((2, 2))}))
    with pytest.raises(ValueError, match="shape"):
        write(adata, result(obsm={"X_fit": np.ones((5, 2))}))
    assert list(adata.obs) == ["fit_pval"]
    assert list(adata.obsm) == ["fit_se"]


def test_a_result_does_not_take_the_place_of_coordinates_and_images():
    spots, reference = um.datasets.simulate_spots(20, 50, 2, rng=0)
    before = spots.copy()
    with pytest.raises(ValueError, match="coordinates and images are there"):
        um.tl.deconvolve(spots, reference, groupby="cell_type", key_added="spatial")
    np.testing.assert_array_equal(spots.obsm["spatial"], before.obsm["spatial"])
