import anndata as ad
import numpy as np
import pytest

import unmix as um
from unmix.datasets import _read


@pytest.fixture
def spots():
    return um.datasets.pbmc_spots(shape=(3, 4))[0]


def test_counts_are_found(spots, tmp_path):
    counts = spots.X.toarray()
    plain, layered, raw = spots, spots.copy(), spots.copy()
    layered.layers["counts"] = layered.X.copy()
    raw.raw = raw.copy()
    for adata in (layered, raw):
        adata.X = np.log1p(counts)
    raw = raw[:, :100].copy()
    for name, adata in {"plain": plain, "layered": layered, "raw": raw}.items():
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        read = um.datasets.read(tmp_path / f"{name}.h5ad")
        np.testing.assert_array_equal(read.X.toarray(), counts, err_msg=name)
        assert list(read.var_names) == list(spots.var_names)
        np.testing.assert_array_equal(read.obsm["spatial"], spots.obsm["spatial"])


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
def test_names_of_raw_are_made_unique_too(spots, tmp_path):
    raw = spots.copy()
    raw.var_names = ["twice", "twice", *raw.var_names[2:]]
    spots.raw = raw
    spots.X = np.log1p(spots.X.toarray())
    spots.write_h5ad(tmp_path / "x.h5ad")
    read = um.datasets.read(tmp_path / "x.h5ad")
    assert list(read.var_names[:2]) == ["twice", "twice-1"]
    np.testing.assert_array_equal(read.X.toarray(), raw.X.toarray())


def test_other_numbers_stay(spots, tmp_path):
    spots.X = np.log1p(spots.X.toarray())
    spots.write_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(um.datasets.read(str(tmp_path / "x.h5ad")).X, spots.X)


def test_names_are_downloaded_to_the_cache(spots, tmp_path, monkeypatch):
    spots.write_h5ad(tmp_path / "down.h5ad")
    asked = []
    monkeypatch.setattr(_read, "fetch", lambda name, cache: asked.append((name, cache)) or tmp_path / "down.h5ad")
    assert isinstance(um.datasets.read("visium_mouse_brain"), ad.AnnData)
    assert asked == [("visium_mouse_brain", "data")]


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a file nor one of the public data sets"):
        um.datasets.read("visium_of_the_moon")
    (tmp_path / "x.txt").write_text("no")
    with pytest.raises(ValueError, match="expected .h5ad"):
        um.datasets.read(tmp_path / "x.txt")
