"""Rows of a file: those of the matrix in memory, whatever the slice, and a cost that does not grow with the file."""

import warnings

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from unmix._adata.disk import rows_on_disk
from unmix._adata.read import read_matrix
from unmix.core.blocks import map_rows

RNG = np.random.default_rng(0)
X = sparse.random(200, 12, 0.3, format="csr", random_state=RNG, dtype=np.float32)


@pytest.fixture(params=["h5ad", "zarr"])
def stored(request, tmp_path):
    adata = ad.AnnData(X)
    if request.param == "h5ad":
        adata.write_h5ad(tmp_path / "x.h5ad")
        yield ad.read_h5ad(tmp_path / "x.h5ad", backed="r").X
    else:
        zarr = pytest.importorskip("zarr")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the format of zarr
            adata.write_zarr(tmp_path / "x.zarr")
        yield ad.io.sparse_dataset(zarr.open(tmp_path / "x.zarr")["X"])


@pytest.mark.parametrize(
    "which",
    [
        slice(None),
        slice(3, 9),
        slice(5, 5),
        slice(190, 400),
        slice(None, None, 3),
        slice(None, None, -1),
        np.array([4, 150, 5, 4]),
        np.array([], int),
        np.arange(200) % 7 == 0,
    ],
)
def test_rows_are_those_in_memory(stored, which):
    rows = rows_on_disk(stored, "X")
    part = rows[which]
    np.testing.assert_array_equal(part.toarray(), X.toarray()[which])
    assert part.dtype == rows.dtype == X.dtype
    assert rows.shape == X.shape
    columns = np.array([7, 2, 3])
    np.testing.assert_array_equal(rows.of(columns)[which].toarray(), X.toarray()[which][:, columns])
    np.testing.assert_array_equal(rows.of(columns).of(np.array([1]))[which].toarray(), X.toarray()[which][:, [2]])


def test_a_block_reads_nothing_but_its_rows(stored):
    class Counted:
        def __init__(self, array):
            self.array, self.dtype, self.shape, self.read = array, array.dtype, array.shape, 0

        def __getitem__(self, which):
            part = self.array[which]
            self.read += part.size
            return part

    rows = rows_on_disk(stored, "X")
    counted = Counted(rows.data)
    object.__setattr__(rows, "data", counted)
    sums = map_rows(lambda block: np.asarray(block.sum(axis=1)).ravel(), rows, block_rows=7)
    np.testing.assert_allclose(sums, X.toarray().sum(axis=1), rtol=1e-6)
    assert counted.read == X.nnz


@pytest.mark.parametrize("damage", ["short", "beyond", "decreasing", "negative"])
def test_rows_that_end_outside_of_the_matrix_are_refused(tmp_path, damage):
    ad.AnnData(X).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r+")
    indptr = adata.file._file["X/indptr"]
    if damage == "short":
        adata.file._file["X"].attrs["shape"] = (199, 12)
        broken = ad.io.sparse_dataset(adata.file._file["X"])
        with pytest.raises(ValueError, match="damaged"):
            rows_on_disk(broken, "X")
        return
    at, value = {"beyond": (-1, 10**6), "decreasing": (9, 0), "negative": (0, -1)}[damage]
    indptr[at] = value
    with pytest.raises(ValueError, match="damaged"):
        read_matrix(adata)
