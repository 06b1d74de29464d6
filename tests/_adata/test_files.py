"""Files that are damaged or lead nowhere, and names of files that are none: refused in words, before anything is written."""

import h5py
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um
from unmix._adata.files import open_file
from unmix._adata.h5ad import new_dense_h5ad


@pytest.fixture
def path(tmp_path):
    adata = AnnData(
        sparse.csr_matrix(np.eye(4, 3, dtype=np.float32)), layers={"counts": sparse.csr_matrix(np.eye(4, 3))}
    )
    adata.raw = adata
    adata.write_h5ad(tmp_path / "x.h5ad")
    return tmp_path / "x.h5ad"


@pytest.mark.parametrize("matrix", ["X", "layers/counts", "raw/X"])
@pytest.mark.parametrize(
    "values", [np.array(["x"] * 5, dtype="S"), np.array([0, 1, 2, 3, 99]), np.array([0, np.nan, 2, 3, 3])]
)
def test_indices_that_are_none_are_refused(path, matrix, values):
    with h5py.File(path, "r+") as file:
        del file[f"{matrix}/indptr"]
        file[f"{matrix}/indptr"] = values
    with pytest.raises(ValueError, match="could not be read"):
        open_file(path)


def test_groups_that_hold_themselves_are_refused(path):
    with h5py.File(path, "r+") as file:
        file["obsm/again"] = file["/"]
    with pytest.raises(ValueError, match="obsm/again leads back"):
        open_file(path)


def test_groups_with_two_names_are_read(path):
    with h5py.File(path, "r+") as file:
        file["layers/again"] = file["layers/counts"]
    assert set(open_file(path).layers) - {None} == {"counts", "again"}  # newer anndata has X among them


def test_a_matrix_is_not_written_where_there_is_no_folder(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="does not exist"),
        new_dense_h5ad(tmp_path / "no" / "x.h5ad", ["a"], ["b"]),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda adata: um.tl.metagenes(adata, 2, checkpoint=""),
        lambda adata: um.tl.autoencoder(adata, 2, checkpoint=""),
        lambda adata: um.tl.zinb_ae(adata, 2, checkpoint=""),
        lambda adata: um.tl.denoise(adata, out=""),
    ],
)
def test_an_empty_name_is_not_the_present_folder(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must name a file or folder"):
        call(AnnData(np.ones((20, 5), np.float32)))
    assert not list(tmp_path.iterdir())


def write_tenx(path, **changed):
    X = sparse.csr_matrix(np.eye(4, 3, dtype=np.float32))
    parts = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array([3, 4])} | changed
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name, values in parts.items():
            group[name] = np.asarray(values)
        group["barcodes"] = np.array([f"c{i}" for i in range(4)], dtype="S")
        for name in ("id", "name", "feature_type", "genome"):
            kind = {"feature_type": "Gene Expression", "genome": "x"}.get(name)
            group[f"features/{name}"] = np.array([kind or f"g{i}" for i in range(3)], dtype="S")


def test_a_tenx_matrix_is_looked_at_before_it_is_turned(tmp_path):
    write_tenx(tmp_path / "x.h5")
    np.testing.assert_array_equal(open_file(tmp_path / "x.h5").X.toarray(), np.eye(4, 3))
    for changed in (
        {"indices": [0, 1, 2**31]},
        {"indptr": [0, 3, 1, 2, 3]},
        {"shape": [2, 4]},
        {"indices": [0.0, 1, 2]},
    ):
        write_tenx(tmp_path / "x.h5", **changed)
        with pytest.raises(ValueError, match="do not fit"):
            open_file(tmp_path / "x.h5")
