"""The networks and their training: gradients, blind scores, what of a plan is found, and order of the rows on disk."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

from unmix.core import training
from unmix.core._zinb_kernels import csr_times, csr_transposed_times
from unmix.core.autoencoder import Options, Trainer, build, fit, initial_weights
from unmix.core.decoding import Wanted, denoise, project
from unmix.core.networks import Design
from unmix.core.training import Rows, blind_folds, gene_moments, make_batch, masked


def planted(n=1500, g=200, seed=0):
    """Counts of four groups; every dispersion is 3."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.4, 1.0, (4, g)) + 0.05
    group = rng.integers(4, size=n)
    log_mean = np.log(profiles[group] * 4) + rng.normal(0, 0.3, (n, 1))
    X = rng.poisson(rng.gamma(3.0, np.exp(log_mean) / 3.0))
    return sparse.csr_matrix(X.astype(np.float32)), log_mean


def rows_of(X, n_batches=1):
    n = X.shape[0]
    return Rows(
        X, np.asarray(X.sum(1)).ravel().astype(float), np.arange(n) % n_batches, np.zeros((n, 0), np.float32)
    )  # fmt: skip


def batch_of(X, rows):
    return make_batch(X, rows, np.arange(X.shape[0]), gene_moments(rows))


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-cell", "gene-batch", "shared"])
@pytest.mark.parametrize("dropout", ["gene-cell", "elementwise", "constant"])
def test_fused_loss_and_gradients_equal_autograd(likelihood, dispersion, dropout, monkeypatch):
    X, _ = planted(n=150, g=60)  # three shards
    rows = rows_of(X, n_batches=3)
    design = Design(60, 5, (8,), likelihood=likelihood, dispersion=dispersion, dropout=dropout, ridge=0.3, n_batches=3)
    weights = initial_weights(design, gene_moments(rows), 0)
    weights["tie"] = weights["tie"] + (np.linspace(-1, 1, 60, dtype=np.float32) if dropout == "elementwise" else 0)
    batch, results = batch_of(X, rows), []
    for fused in (True, False):
        monkeypatch.setattr("unmix.core.networks.Network.fused", property(lambda _, fused=fused: fused))
        net = build(design, weights, Options(device="cpu", precision="float32"))
        loss = net.loss(net.decode(net.encode(batch)[0], batch.codes), batch)
        loss.backward()
        results.append(
            (float(loss.detach()), net.row_losses(net.decode(net.encode(batch)[0], batch.codes), batch), net)
        )
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5)
    for (name, ours), theirs in zip(results[0][2].named_parameters(), results[1][2].parameters(), strict=True):
        a, b = ours.grad, theirs.grad
        if ours.numel() and a is not None and b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4 * max(float(b.abs().max()), 0.5), err_msg=name)


def test_bfloat16_products_change_loss_and_gradients_by_their_rounding_only():
    X, _ = planted(n=150, g=60)
    rows = rows_of(X)
    design = Design(60, 5, (8,), likelihood="zinb", dispersion="gene-cell")
    weights, results = initial_weights(design, gene_moments(rows), 0), []
    for precision in ("float32", "bfloat16"):
        net = build(design, weights, Options(device="cpu", precision=precision))
        batch = batch_of(X, rows)
        loss = net.loss(net.decode(net.encode(batch)[0], batch.codes), batch)
        loss.backward()
        results.append((float(loss.detach()), torch.cat([p.grad.ravel() for p in net.parameters() if p.requires_grad])))
    (exact, gradient), (rounded, other) = results
    assert rounded == pytest.approx(exact, rel=2**-8)
    assert float(torch.linalg.norm(gradient - other)) < 2**-6 * float(torch.linalg.norm(gradient))


def test_what_is_stored_does_not_depend_on_the_processors_bfloat16(monkeypatch):
    X, _ = planted(n=150, g=60)
    fitted = fit(rows_of(X), Design(60, 5, (8,)), Options(max_epochs=2, precision="float32"), seed=0)
    tables = []
    for native in (True, False):
        monkeypatch.setattr("unmix.core.autoencoder.bf16_is_native", lambda native=native: native)
        tables.append(project(fitted, rows_of(X)).latent)
    np.testing.assert_array_equal(*tables)


def test_blind_folds_hide_what_they_ask_for_and_cover_every_gene_once():
    X, _ = planted(n=80, g=53)
    batch = batch_of(X, rows_of(X))
    folds = blind_folds(batch, 53, np.random.default_rng(0))
    assert sorted(np.concatenate([f.genes for f in folds])) == list(range(53))
    for fold in folds:
        assert not fold.visible.inputs[np.isin(batch.indices, fold.genes)].any()
        target = sparse.csr_array((fold.target.counts, fold.target.indices, fold.target.indptr), (80, len(fold.genes)))
        np.testing.assert_array_equal(target.toarray(), X[:, fold.genes].toarray())


def test_masks_keep_the_mean_of_the_inputs():
    X, _ = planted(n=200, g=50)
    batch = batch_of(X, rows_of(X))
    half = masked(batch, 0.5, np.random.default_rng(0))
    assert 0.45 < (half.inputs == 0).mean() < 0.55
    assert half.inputs.sum() == pytest.approx(batch.inputs.sum(), rel=0.05)
    assert masked(batch, 0.0, np.random.default_rng(0)) is batch


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_planted_means_are_found_and_more_epochs_do_no_harm(kind):
    X, log_mean = planted(n=1600, g=120)
    rows, unseen, log_mean = rows_of(X[:800]), rows_of(X[800:]), log_mean[:800]
    design = Design(120, 8, (16,), kind=kind, likelihood="nb")
    short = fit(rows, design, Options(max_epochs=20, batch_size=64))
    longer = fit(rows, design, Options(max_epochs=200, batch_size=64))
    assert longer.state.best_loss <= short.state.best_loss
    assert project(longer, unseen).nll.mean() < project(short, unseen).nll.mean() * 1.001
    mean = np.concatenate(list(denoise(longer, rows, Wanted())))
    assert np.corrcoef(np.log1p(mean).ravel(), np.log1p(np.exp(log_mean)).ravel())[0, 1] > 0.985
    assert np.median(np.exp(longer.weights["log_dispersion"])) == pytest.approx(3.0, rel=0.35)


def test_the_whole_divergence_counts_though_many_cells_have_few_epochs(monkeypatch):
    """Of 400,000 cells and more it counted half at the end of five epochs."""
    X, _ = planted(n=60, g=10)
    step, weights = Trainer._step, []

    def recorded(self, batch, noise, kl_weight, n):
        weights.append(float(kl_weight))
        return step(self, batch, noise, kl_weight, n)

    monkeypatch.setattr(Trainer, "_step", recorded)
    for n_epochs, rising in ((200, np.arange(1, 6) / 10), (5, [0.5, 1, 1, 1, 1])):
        monkeypatch.setattr("unmix.core.autoencoder.automatic_epochs", lambda _, n=n_epochs: n)
        fit(rows_of(X), Design(10, 2, (4,), kind="vae", likelihood="nb"), Options(max_epochs=5, device="cpu"))
        np.testing.assert_allclose(weights, rising)
        weights.clear()


def test_hiding_counts_keeps_the_network_from_copying_them():
    X, log_mean = planted(n=800, g=120)
    rows, errors = rows_of(X), []
    for share in (0.0, 0.5):
        found = fit(rows, Design(120, 32, (64,), likelihood="nb"), Options(max_epochs=25, mask=share))
        mean = np.concatenate(list(denoise(found, rows, Wanted())))
        errors.append(np.mean((np.log1p(mean) - np.log1p(np.exp(log_mean))) ** 2))
    assert errors[1] < 0.8 * errors[0]


def test_many_blocks_from_disk_and_dask_give_the_numbers_of_memory(monkeypatch, tmp_path):
    da = pytest.importorskip("dask.array")
    monkeypatch.setattr(training, "default_block_rows", lambda _: 32)  # ten blocks, a buffer of eight
    X, _ = planted(n=310, g=40)
    rows, design, options = rows_of(X), Design(40, 3, (8,), likelihood="nb"), Options(max_epochs=2, batch_size=64)
    wanted = project(fit(rows, design, options), rows)
    ad.AnnData(X).write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for other in (backed.X, da.from_array(X, chunks=(48, 40), asarray=False), X.toarray()):
        found = replace(rows, X=other)
        np.testing.assert_allclose(project(fit(found, design, options), found).latent, wanted.latent, rtol=1e-5)
    backed.file.close()


def test_last_batches_and_large_counts():
    X, _ = planted(n=12, g=7)
    X = X.tolil()
    X[2, 3] = 1_000_000
    rows = rows_of(X.tocsr())
    found = fit(rows, Design(7, 2, (4,), likelihood="zinb"), Options(max_epochs=3, batch_size=10))
    assert all(np.isfinite(v).all() for v in found.weights.values())
    assert np.isfinite(project(found, rows).nll).all()
    assert torch.get_num_threads() >= 1


@pytest.mark.parametrize("width", [5, 8, 16, 24, 64])
def test_sparse_products_of_any_width_equal_dense_ones(width):
    rng = np.random.default_rng(width)
    X = sparse.random(70, 40, density=0.3, format="csr", dtype=np.float32, random_state=rng)
    W, D = rng.normal(size=(40, width)).astype(np.float32), rng.normal(size=(70, width)).astype(np.float32)
    out, sums = np.full((70, width), np.nan, np.float32), np.ones((40, width), np.float32)
    csr_times(X.indptr, X.indices, X.data, W, out)
    csr_transposed_times(X.indptr, X.indices, X.data, D, sums)
    np.testing.assert_allclose(out, X.toarray() @ W, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums, 1 + X.toarray().T @ D, rtol=1e-4, atol=1e-5)
