"""The one way over the rows: every container, any block size, any number of threads, a cluster."""

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from unmix.core.blocks import as_block, default_block_rows, iter_blocks, map_rows, reduce_rows, take_rows

rng = np.random.default_rng(0)
DENSE = rng.poisson(0.5, (53, 7)).astype(np.float32)
SIDE = rng.random((53, 3))


def project(block, side, S):
    return block @ S, side.sum(axis=1)


def cross(block, side):
    return block.T @ side, float(block.sum())


@pytest.fixture(params=["dense", "csr_matrix", "csr_array", "csc", "coo", "h5py", "backed", "backed csc", "dask"])
def container(request, tmp_path):
    kind = request.param
    if kind in ("h5py", "backed", "backed csc"):
        X = {"h5py": DENSE, "backed": sparse.csr_matrix(DENSE), "backed csc": sparse.csc_matrix(DENSE)}[kind]
        ad.AnnData(X).write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
        request.addfinalizer(adata.file.close)  # noqa: PT021
        return adata.X
    if kind == "dask":
        da = pytest.importorskip("dask.array")
        return da.from_array(sparse.csr_matrix(DENSE), chunks=(10, 4), asarray=False)
    return {
        "dense": DENSE,
        "csr_matrix": sparse.csr_matrix(DENSE),
        "csr_array": sparse.csr_array(DENSE),
        "csc": sparse.csc_matrix(DENSE),
        "coo": sparse.coo_matrix(DENSE),
    }[kind]


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("block_rows", [1, 8, 100])
def test_map_and_reduce_equal_the_whole(container, block_rows, n_jobs):
    S = rng.random((7, 2))
    product, side = map_rows(project, container, SIDE, constants=(S,), block_rows=block_rows, n_jobs=n_jobs)
    np.testing.assert_allclose(product, DENSE @ S, rtol=1e-12)
    np.testing.assert_allclose(side, SIDE.sum(axis=1))
    gram, total = reduce_rows(cross, container, SIDE, block_rows=block_rows, n_jobs=n_jobs)
    np.testing.assert_allclose(gram, DENSE.T @ SIDE, rtol=1e-6)
    assert total == DENSE.sum()


def test_sums_have_the_same_bits_on_any_number_of_threads():
    X = rng.standard_normal((1000, 5))
    sums = [reduce_rows(lambda b: b.sum(axis=0), X, block_rows=7, n_jobs=n) for n in (1, 2, 5)]
    np.testing.assert_array_equal(sums[0], sums[1])
    np.testing.assert_array_equal(sums[0], sums[2])


def test_no_rows_give_an_empty_result():
    product, side = map_rows(project, DENSE[:0], SIDE[:0], constants=(np.ones((7, 2)),))
    assert product.shape == (0, 2)
    assert side.shape == (0,)


def test_blocks_are_canonical_and_the_input_is_left_alone():
    messy = sparse.csr_matrix((np.ones(4), np.array([2, 0, 0, 1]), np.array([0, 3, 4])), shape=(2, 3))
    block = as_block(messy)
    assert block.has_canonical_format
    np.testing.assert_array_equal(block.toarray(), [[2, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(messy.indices, [2, 0, 0, 1])


def test_walk_covers_every_row_once(container):
    rows = [row for piece, block in iter_blocks(container, 8) for row in range(piece.start, piece.stop)]
    assert rows == list(range(53))


def test_take_rows(container):
    block = take_rows(container, np.array([0, 5, 52]))
    block = block.toarray() if sparse.issparse(block) else block
    np.testing.assert_array_equal(block, DENSE[[0, 5, 52]])


def test_misaligned_rows_are_refused():
    with pytest.raises(ValueError, match="52 rows"):
        map_rows(project, DENSE, SIDE[:52], constants=(np.ones((7, 2)),))


def test_fewer_rows_than_were_read_are_refused():
    with pytest.raises(ValueError, match="stream_rows"):
        map_rows(lambda block: block[:1], np.ones((5, 2)), block_rows=2)


def test_an_error_in_a_worker_reaches_the_caller():
    def fail(block):
        msg = "boom"
        raise ArithmeticError(msg)

    with pytest.raises(ArithmeticError, match="boom"):
        map_rows(fail, DENSE, n_jobs=2, block_rows=5)


def test_block_rows_bound_the_entries():
    assert default_block_rows(2_000) == 4096
    assert default_block_rows(30_000) == 279
    assert default_block_rows(10**9) == 64
