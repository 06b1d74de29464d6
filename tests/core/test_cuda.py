"""The same code on a GPU: the losses, latents and means of the processor.

Without a GPU its operations run on the processor, which shows the mathematics, and not the transfers, to be the same; the
rest is skipped.
"""

import gc
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse

from unmix.core import autoencoder
from unmix.core.autoencoder import Options, build, fit, initial_weights
from unmix.core.decoding import Wanted, denoise, project
from unmix.core.networks import Design, Network
from unmix.core.recorded import Buffers, padded
from unmix.core.training import Rows, gene_moments, make_batch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
DESIGNS = {
    "zinb": {"dispersion": "gene-cell"},
    "zinb elementwise": {"dropout": "elementwise", "ridge": 0.1},
    "zinb constant, shared": {"dropout": "constant", "dispersion": "shared"},
    "nb by batch": {"likelihood": "nb", "dispersion": "gene-batch", "n_batches": 2, "n_codes": 2},
    "poisson": {"likelihood": "poisson"},
    "gaussian": {"likelihood": "gaussian"},
    "vae": {"kind": "vae", "likelihood": "nb", "hidden": (32, 16)},
}


def rows_of(n=900, g=160, seed=0, counts=True):
    """Counts of four groups in two batches, a cell without counts and a gene without any."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.4, 1.0, (4, g)) + 0.05
    mean = profiles[rng.integers(4, size=n)] * 4 * rng.lognormal(0, 0.3, (n, 1))
    x = rng.poisson(rng.gamma(3.0, mean / 3.0)).astype(np.float32)
    x[5], x[:, 7] = 0, 0
    x = x if counts else np.log1p(x)
    batch = np.arange(n) % 2
    return Rows(sparse.csr_matrix(x), x.sum(1).astype(float), batch, np.eye(2, dtype=np.float32)[batch], counts)


def case(name):
    design = Design(160, **{"n_latent": 6, "hidden": (32,), **DESIGNS[name]})
    rows = rows_of(counts=design.likelihood != "gaussian")
    if design.n_codes == 0:
        rows = Rows(rows.X, rows.totals, np.zeros(900, np.int64), np.zeros((900, 0), np.float32), rows.counts)
    return rows, design


def options(device, **more):
    return Options(**{"max_epochs": 4, "batch_size": 100, "device": device, "precision": "float32", **more})


@pytest.fixture(params=["operations of a GPU", pytest.param("cuda", marks=needs_gpu)])
def device(request, monkeypatch):
    """Where the other half of a comparison runs."""
    if request.param == "cuda":
        return "cuda"
    monkeypatch.setattr(Network, "compiled", property(lambda net: net.uses_kernels))
    monkeypatch.setattr(Network, "uses_kernels", True, raising=False)
    return request.param


@pytest.fixture
def there(device, monkeypatch):
    """Return a function that calls another with that device."""

    def call(function, *args, **kwargs):
        if device == "cuda":
            return function(*args, device="cuda", **kwargs)
        with monkeypatch.context() as patch:
            patch.setattr(Network, "uses_kernels", False)
            return function(*args, device="cpu", **kwargs)

    return call


def trained(rows, design, *, device, state=None, on_epoch=None, seed=0, **more):
    return fit(rows, design, options(device, **more), seed=seed, state=state, on_epoch=on_epoch)


def close(a, b, tolerance):
    """Whether two tables agree, relative to the size of their values."""
    used = np.isfinite(b)
    np.testing.assert_array_equal(np.isfinite(a), used)
    assert np.abs(a[used] - b[used]).max(initial=0) <= tolerance * np.abs(b[used]).max(initial=1)


@pytest.mark.parametrize("name", DESIGNS)
def test_same_losses_latents_and_means(name, there):
    rows, design = case(name)
    ours, theirs = trained(rows, design, device="cpu"), there(trained, rows, design)
    for part in ("train", "validation"):
        np.testing.assert_allclose(theirs.history[part], ours.history[part], rtol=1e-4)
    a, b = project(ours, rows, device="cpu"), there(project, theirs, rows)
    # a rounding can turn a step of Adam: noise of 1e-6 in the first layer moves the VAE's coordinates by 1% on a processor too
    close(b.latent, a.latent, 2e-2 if design.kind == "vae" else 1e-3)
    np.testing.assert_allclose(b.nll, a.nll, rtol=1e-3)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_same_weights_give_the_same_numbers(name, there):
    rows, design = case(name)
    fitted, counted = trained(rows, design, device="cpu", max_epochs=2), design.likelihood in ("nb", "zinb")
    a = project(fitted, rows, score_genes=counted, device="cpu")
    b = there(project, fitted, rows, score_genes=counted)
    close(b.latent, a.latent, 1e-3)
    close(b.variance, a.variance, 1e-3)
    np.testing.assert_allclose(b.nll, a.nll, rtol=1e-4)
    if counted:
        np.testing.assert_allclose(b.inflation.score, a.inflation.score, rtol=1e-3, atol=2e-2)
    if design.inflated:
        np.testing.assert_allclose(b.dropout, a.dropout, rtol=1e-4)
    some = Wanted(np.array([3, 50, 159]), dropout=True, library=False)
    for wanted in (Wanted(), some):
        ours, theirs = (
            np.concatenate(list(parts))
            for parts in (denoise(fitted, rows, wanted, device="cpu"), denoised(there, fitted, rows, wanted))
        )
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)


def denoised(there, fitted, rows, wanted):
    return there(lambda *, device: list(denoise(fitted, rows, wanted, device=device)))


def test_bfloat16_reaches_the_likelihood_of_single_precision(there):
    rows, design = case("zinb")
    ours = trained(rows, design, device="cpu", max_epochs=15)
    theirs = there(trained, rows, design, max_epochs=15, precision="bfloat16")
    assert theirs.state.best_loss == pytest.approx(ours.state.best_loss, rel=5e-3)


def test_resumed_equals_uninterrupted_also_on_the_other_device(there):
    rows, design = case("zinb")
    whole = there(trained, rows, design)
    for first, second in ((there, there), (there, here), (here, there)):
        half = first(trained, rows, design, max_epochs=2)
        found = second(trained, rows, design, state=half.state)
        assert len(found.history["train"]) == 4
        np.testing.assert_allclose(found.history["validation"], whole.history["validation"], rtol=1e-4)


def here(function, *args, **kwargs):
    return function(*args, device="cpu", **kwargs)


def test_an_interrupt_keeps_the_best_epoch(there):
    rows, design = case("zinb")

    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    found = there(trained, rows, design, on_interrupt="keep", on_epoch=interrupt)
    assert not found.finished
    assert found.state.epoch == 2
    with pytest.raises(KeyboardInterrupt):
        there(trained, rows, design, on_epoch=interrupt)


def test_the_same_seed_gives_the_same_bits(there):
    rows, design = case("zinb")
    one, two = (there(trained, rows, design, max_epochs=2) for _ in range(2))
    for name, value in one.weights.items():
        np.testing.assert_array_equal(value, two.weights[name], err_msg=name)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_rest_of_a_buffer_changes_nothing(name, monkeypatch):
    monkeypatch.setattr(Network, "compiled", False)
    rows, design = case(name)
    genes, at, results = gene_moments(rows), np.arange(60, 120), []
    batch = make_batch(rows.X[at], rows, at, genes)
    buffers = {k: torch.as_tensor(v) for k, v in padded(batch, design.n_vars, len(batch.inputs) + 77).items()}
    for given in (batch, Buffers(**buffers)):
        net = build(design, initial_weights(design, genes, 0), options("cpu"))
        loss = net.loss(net.decode(net.encode(given)[0], given.codes), given)
        loss.backward()
        results.append((float(loss.detach()), [p.grad for p in net.parameters() if p.grad is not None and p.numel()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(b.abs().max())))


@needs_gpu
@pytest.mark.parametrize("name", DESIGNS)
def test_recorded_steps_are_those_taken_one_by_one(name, monkeypatch):
    """With a last batch of another size, a return to a third of the learning rate, and batches of more counts than expected."""
    rows, design = case(name)
    more = {"max_epochs": 8, "patience": 1, "learning_rate": 0.05, "batch_size": 64}
    recorded = trained(rows, design, device="cuda", **more)
    monkeypatch.setattr(autoencoder, "Recorded", lambda *_: None)
    plain = trained(rows, design, device="cuda", **more)
    assert recorded.state.returns == plain.state.returns
    for part in ("train", "validation", "learning_rate"):
        np.testing.assert_allclose(recorded.history[part], plain.history[part], rtol=1e-4)


@needs_gpu
@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_a_model_of_the_gpu_is_used_on_a_processor(kind, tmp_path):
    ad = pytest.importorskip("anndata")
    import unmix as um

    cells = ad.AnnData(rows_of().X)
    options = {"kind": kind, "n_latent": 5, "likelihood": "nb", "max_epochs": 3, "denoise": ["3", "8"]}
    um.tl.autoencoder(cells, **options, device="cuda")
    um.save(cells, tmp_path / "model.safetensors", key=kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        new = ad.AnnData(rows_of().X)
        model = um.load(tmp_path / "model.safetensors")
        um.tl.transform(new, model, key=kind)
        um.tl.denoise(new, model, key=kind, genes=["3", "8"], device="cpu")
    close(new.obsm["X_" + kind], cells.obsm["X_" + kind], 1e-3)
    found, wanted = (a.layers[kind + "_denoised"][:, [3, 8]].toarray() for a in (new, cells))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def recordings():
    """Return how many recorded steps there are, garbage among them."""
    return sum(isinstance(found, torch.cuda.CUDAGraph) for found in gc.get_objects())


@needs_gpu
def test_a_fit_leaves_no_recording_behind():
    gc.collect()
    before = recordings()
    gc.disable()
    try:
        trained(*case("vae"), device="cuda")
        assert recordings() == before
    finally:
        gc.enable()


@needs_gpu
def test_no_garbage_is_collected_while_a_step_is_recorded(monkeypatch):
    """To free one recording ends another that is under way."""
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
        torch.ones(3, device="cuda")
    earlier, loss, frequency = [graph], autoencoder.Trainer._loss, gc.get_threshold()
    del graph

    def littering(self, *args):
        if torch.cuda.is_current_stream_capturing():
            circle = [earlier.pop()] if earlier else []
            for _ in range(1000):  # young garbage is looked for after a few of them
                circle.append(circle)
                circle = []
        return loss(self, *args)

    monkeypatch.setattr(autoencoder.Trainer, "_loss", littering)
    gc.set_threshold(1, 1, 1)
    try:
        trained(*case("vae"), device="cuda")
    finally:
        gc.set_threshold(*frequency)
    assert not earlier


@needs_gpu
def test_steps_do_not_wait_for_the_gpu():
    (rows, design), counts = case("zinb"), []
    for size in (100, 20):  # 8 steps, 40 steps
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                trained(rows, design, device="cuda", max_epochs=1, batch_size=size)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(w.message) for w in found))
    assert counts[1] < counts[0] + 8
