"""Joint factorisation of batches: the stated objective, its limits, unmeasured variables, known loadings, online passes."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.factorization import Walk, nmf
from unmix.core.joint import batch_rms, batch_usages, joint_batches
from unmix.core.joint_loadings import Known
from unmix.core.simplex import nnls_kkt

CODES = np.repeat([0, 1], 150)
EXACT = Walk(tol=1e-9, max_iter=5000)


@pytest.fixture(scope="module")
def X():
    r = np.random.default_rng(0)
    H = r.gamma(0.3, 1, (4, 50))
    own = np.zeros((2, 4, 50))
    own[1][:, 40:] = 3.0
    return np.vstack([r.poisson(r.gamma(0.5, 2, (150, 4)) @ (H + v)).astype(float) for v in own])


def objective(X, fit, lam, D, codes=CODES):
    total = 0.0
    for b, v in enumerate(fit.V):
        w, x = fit.W[codes == b], X[codes == b]
        seen = (D[b] > 0).astype(float)
        total += ((x * D[b] - w @ (fit.H * seen + v)) ** 2).sum() + lam * ((w @ v) ** 2).sum()
    return total


def scales(X):
    return 1 / batch_rms(X, CODES, 2)


@pytest.mark.parametrize("scaled", [False, True])
def test_batches_descend_on_the_stated_objective(X, scaled):
    D = scales(X) if scaled else np.ones((2, 50))
    fit = joint_batches(X, CODES, 4, scales=D)
    assert np.all(np.diff(fit.loss) <= 1e-8 * fit.loss[0])
    np.testing.assert_allclose(fit.loss[-1], objective(X, fit, 5.0, D), rtol=1e-8)
    np.testing.assert_allclose(fit.W.mean(axis=0), 1)


def test_nothing_depends_on_storage_blocks_threads_or_order(X, tmp_path):
    anndata = pytest.importorskip("anndata")
    fit = joint_batches(X, CODES, 4)
    anndata.AnnData(sparse.csr_matrix(X)).write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for other in (sparse.csr_array(X), sparse.csc_array(X), backed.X):
        again = joint_batches(other, CODES, 4, walk=Walk(2, 33))
        np.testing.assert_allclose(again.H, fit.H, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(again.W, fit.W, rtol=1e-5, atol=1e-7)
    backed.file.close()


def test_rows_in_any_order(X):
    """Starts follow the rows, so that fits of shuffled rows agree where the optimum is one."""
    W = np.random.default_rng(0).gamma(1, 1, (300, 2)) * (np.arange(300)[:, None] % 3 != [0, 1])
    simple = W @ (np.kron(np.eye(2), np.ones((1, 6))) + 0.01)
    order = np.random.default_rng(1).permutation(300)
    fit = joint_batches(simple, CODES, 2, walk=EXACT)
    shuffled = joint_batches(simple[order], CODES[order], 2, walk=EXACT)
    swapped = joint_batches(simple, 1 - CODES, 2, walk=EXACT)
    for other in (shuffled, swapped):
        np.testing.assert_allclose(other.loss[-1], fit.loss[-1], atol=1e-4 * (simple**2).sum())
    np.testing.assert_allclose(shuffled.W @ shuffled.H, (fit.W @ fit.H)[order], atol=0.05)


def test_optimality_of_usages_and_loadings(X):
    fit = joint_batches(X, CODES, 4, walk=EXACT)
    w = [fit.W[b == CODES] for b in range(2)]
    x = [X[b == CODES] for b in range(2)]
    for b in range(2):
        F, V, G = fit.H + fit.V[b], fit.V[b], w[b].T @ w[b]
        assert nnls_kkt(F @ F.T + 5 * V @ V.T, x[b] @ F.T, w[b]).max() < 2e-3
        assert nnls_kkt(6 * G, (x[b] - w[b] @ fit.H).T @ w[b], V.T).max() < 2e-3
    rest = sum((x[b] - w[b] @ fit.V[b]).T @ w[b] for b in range(2))
    assert nnls_kkt(sum(a.T @ a for a in w), rest, fit.H.T).max() < 2e-3


def test_what_only_one_batch_has_goes_to_its_own_part(X):
    fit = joint_batches(X, CODES, 4, specificity=0.1)
    w = fit.W[CODES == 1].mean(axis=0)
    own, whole = w @ fit.V[1], w @ (fit.H + fit.V[1])
    assert own[40:].sum() / whole[40:].sum() > 2 * own[:40].sum() / whole[:40].sum()


def test_limits_of_the_price(X):
    """Free own parts are a factorisation of every batch; dear ones leave plain NMF of all rows."""
    free = joint_batches(X, CODES, 4, specificity=0.0, walk=EXACT)
    alone = sum(2 * nmf(X[b == CODES], 4, walk=EXACT).loss[-1] for b in range(2))
    assert abs(free.loss[-1] / alone - 1) < 0.03
    dear = joint_batches(X, CODES, 4, specificity=1e6, walk=EXACT)
    assert (dear.W @ dear.V.sum(axis=0)).max() < 1e-3 * X.max()
    assert abs(dear.loss[-1] / (2 * nmf(X, 4, walk=EXACT).loss[-1]) - 1) < 0.03


def test_one_batch_without_its_own_part_is_plain_nmf(X):
    one = X[:150]
    fit = joint_batches(one, np.zeros(150, int), 4, specificity=1e6, walk=EXACT)
    assert fit.loss[-1] / 2 <= nmf(one, 4, start="random", walk=EXACT).loss[-1] * 1.03


def test_usages_of_a_batch_are_optimal(X):
    fit, D = joint_batches(X, CODES, 4), scales(X)
    F, V, d = fit.H + fit.V[1], fit.V[1], D[1]
    W = batch_usages(X[150:], fit.H, V, specificity=5.0, scale=d)
    assert nnls_kkt(F @ F.T + 5 * V @ V.T, (X[150:] * d) @ F.T, W).max() < 1e-6


def test_what_a_batch_did_not_measure_does_not_matter(X):
    D = np.ones((2, 50))
    D[1, :10] = 0
    fit = joint_batches(X, CODES, 4, scales=D)
    assert np.all(np.diff(fit.loss) <= 1e-8 * fit.loss[0])
    np.testing.assert_allclose(fit.loss[-1], objective(X, fit, 5.0, D), rtol=1e-8)
    assert not fit.H[:, :10].any()
    assert not fit.V[1][:, :10].any()
    assert fit.V[0][:, :10].any()
    other = X.copy()
    other[150:, :10] = 77
    np.testing.assert_allclose(joint_batches(other, CODES, 4, scales=D).H, fit.H, rtol=1e-10)


def test_a_variable_of_two_of_three_batches_is_shared_by_these(X):
    codes, D = np.repeat([0, 1, 2], 100), np.ones((3, 50))
    D[2, :10] = 0
    fit = joint_batches(X, codes, 4, scales=D, walk=EXACT)
    w = [fit.W[codes == b] for b in range(2)]
    rest = sum((X[codes == b][:, :10] - w[b] @ fit.V[b][:, :10]).T @ w[b] for b in range(2))
    assert fit.H[:, :10].any()
    assert nnls_kkt(sum(a.T @ a for a in w), rest, fit.H[:, :10].T).max() < 5e-3


def test_known_loadings_are_kept_or_improved(X):
    first = joint_batches(X, CODES, 4)
    r = np.random.default_rng(3)
    new = np.vstack([X[150:], r.poisson(X[:100] * 0.8)]).astype(float)
    codes = np.repeat([0, 1], [150, 100])
    known = {"H": first.H, "V": {0: first.V[1]}}
    kept = joint_batches(new, codes, 4, known=Known(**known, keep=True))
    np.testing.assert_array_equal(kept.H, first.H)
    np.testing.assert_array_equal(kept.V[0], first.V[1])
    assert kept.V[1].any()
    assert np.all(np.diff(kept.loss) <= 1e-8 * kept.loss[0])
    better = joint_batches(new, codes, 4, known=Known(**known))
    assert better.loss[-1] < kept.loss[-1]
    assert len(joint_batches(X, CODES, 4, known=Known(first.H, dict(enumerate(first.V)))).loss) < len(first.loss) / 2


@pytest.mark.parametrize("shuffled", [False, True])
def test_online_passes_descend_and_end_at_the_same_level(X, shuffled):
    order = np.random.default_rng(0).permutation(300) if shuffled else np.arange(300)
    fit = joint_batches(X[order], CODES[order], 4, online=4, walk=EXACT)
    assert np.all(np.diff(fit.loss) <= 1e-8 * fit.loss[0])
    np.testing.assert_allclose(fit.loss[-1], objective(X[order], fit, 5.0, np.ones((2, 50)), CODES[order]), rtol=1e-6)
    assert fit.loss[-1] < 1.02 * joint_batches(X, CODES, 4, walk=EXACT).loss[-1]
    assert fit.loss[1] < joint_batches(X[order], CODES[order], 4).loss[1]


def test_online_passes_read_a_block_at_a_time(X):
    class OnDisk:
        shape, dtype, ndim = X.shape, X.dtype, 2
        largest = 0

        def __getitem__(self, rows):
            part = X[rows]
            self.largest = max(self.largest, len(part))
            return part

    disk = OnDisk()
    joint_batches(disk, CODES, 4, online=2, walk=Walk(block_rows=64))
    assert disk.largest <= 66


def test_empty_rows_and_variables_have_nothing(X):
    holes = X.copy()
    holes[3], holes[:, 7] = 0, 0
    fit = joint_batches(holes, CODES, 4)
    assert not fit.W[3].any()
    assert np.isfinite(fit.W).all()
    np.testing.assert_allclose(fit.W @ fit.H[:, 7], 0, atol=1e-12)


def test_permuted_loadings_and_variables_give_permuted_usages(X):
    known = joint_batches(X, CODES, 4)
    V = dict(enumerate(known.V))
    fit = joint_batches(X, CODES, 4, known=Known(known.H, V, keep=True), walk=EXACT)
    k, genes = np.array([2, 0, 3, 1]), np.random.default_rng(0).permutation(50)
    moved = Known(known.H[k][:, genes], {b: v[k][:, genes] for b, v in V.items()}, keep=True)
    np.testing.assert_allclose(joint_batches(X[:, genes], CODES, 4, known=moved, walk=EXACT).W, fit.W[:, k], atol=2e-3)
