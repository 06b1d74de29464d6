import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import unmix as um


def planted(n=400, g=120, seed=0):
    """Counts of four groups of cells, with an empty cell and a silent gene."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.4, 1.0, (4, g)) + 0.02
    group = rng.integers(4, size=n)
    mu = profiles[group] * rng.lognormal(0, 0.3, (n, 1)) * 3
    X = rng.poisson(rng.gamma(2.0, mu / 2.0)).astype(np.float32)
    X[3], X[:, 5] = 0, 0
    adata = AnnData(sparse.csr_matrix(X))
    adata.obs["group"] = [f"g{k}" for k in group]
    return adata


ARGUMENTS = {"n_latent": 4, "likelihood": "nb", "max_epochs": 4}


def latent(adata, **changes):
    return um.tl.autoencoder(adata, **{**ARGUMENTS, **changes}, copy=True).obsm["X_ae"]


def test_same_bits_for_any_number_of_threads_and_storage(tmp_path):
    adata = planted()
    wanted = latent(adata, n_jobs=1)
    np.testing.assert_array_equal(latent(adata, n_jobs=2), wanted)
    dense = adata.copy()
    dense.X = dense.X.toarray()
    np.testing.assert_array_equal(latent(dense), wanted)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(latent(backed), wanted)
    backed.file.close()


def test_silent_genes_and_empty_cells_are_handled_and_reported():
    adata = planted()
    threads = torch.get_num_threads()
    um.tl.zinb_ae(adata, 4, dispersion="gene", max_epochs=2, denoise=True)
    assert torch.get_num_threads() == threads
    empty = np.isnan(adata.obsm["X_zinb_ae"]).all(1)
    assert empty[3]
    assert empty.sum() == adata.uns["zinb_ae"]["n_empty"] == 1
    assert np.isnan(adata.var["zinb_ae_dispersion"].iloc[5])
    assert np.isfinite(np.delete(adata.layers["zinb_ae_denoised"], 3, axis=0)).all()


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_held_out_loss_falls_and_the_best_epoch_is_kept(kind):
    adata = planted()
    um.tl.autoencoder(adata, 4, kind=kind, likelihood="nb", max_epochs=12)
    history = adata.uns[kind]["history"]["validation"]
    assert history.min() < history[0]
    assert adata.uns[kind]["best_epoch"] == history.argmin() + 1


@pytest.mark.parametrize(
    "options",
    [
        {"likelihood": "poisson"},
        {"likelihood": "gaussian"},
        {"likelihood": "zinb", "dropout": "elementwise"},
        {"dispersion": "gene-cell"},
        {"dispersion": "gene-batch", "batch_key": "group"},
        {"dispersion": "shared"},
        {"likelihood": "auto"},
    ],
)
def test_transform_of_the_training_cells_equals_the_fit_after_a_round_trip(options, tmp_path):
    adata = planted()
    um.tl.autoencoder(adata, **{**ARGUMENTS, **options, "max_epochs": 2})
    adata.write_h5ad(tmp_path / "a.h5ad")
    stored, new = ad.read_h5ad(tmp_path / "a.h5ad"), planted()
    um.tl.transform(new, stored, key="ae")
    np.testing.assert_allclose(new.obsm["X_ae"], adata.obsm["X_ae"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "where"), [("ae", "_train"), ("ae", "_loss"), ("vae", "_loss"), ("ae", "_moments")])
def test_interrupted_and_resumed_equals_uninterrupted(kind, where, monkeypatch, tmp_path):
    """The interrupt comes in the third epoch: before it, among its batches, or when all but its end is done."""
    from unmix.core.autoencoder import Trainer

    adata, device = planted(), "cpu" if where == "_loss" else "auto"  # a GPU replays steps that Python does not see
    options = {**ARGUMENTS, "kind": kind, "device": device}
    whole, two = (um.tl.autoencoder(adata, **options | {"max_epochs": n}, copy=True) for n in (4, 2))
    epoch, step, current, calls = Trainer._epoch, getattr(Trainer, where), [0], [0]

    def counted(self, state):
        current[0] = state.epoch
        epoch(self, state)

    def interrupted(self, *args):
        calls[0] += current[0] == 2
        if calls[0] == (3 if where == "_loss" else 1):
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", counted)
        patch.setattr(Trainer, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            um.tl.autoencoder(adata, **options)
        assert not adata.uns
        assert not adata.obsm
        calls[0] = 0
        um.tl.autoencoder(adata, **options, on_interrupt="keep")
    assert not adata.uns[kind]["finished"]
    np.testing.assert_array_equal(adata.obsm[f"X_{kind}"], two.obsm[f"X_{kind}"])
    adata.write_h5ad(tmp_path / "kept.h5ad")
    kept = ad.read_h5ad(tmp_path / "kept.h5ad")
    with pytest.raises(ValueError, match="had other genes"):
        um.tl.autoencoder(kept[:, ::-1].copy(), **options, resume=True)
    number, text = kept.copy(), kept.copy()
    number.uns[kind]["totals"], text.uns[kind]["totals"] = 0.0, "x"
    for cells in (kept[::-1], kept[:50], number, text):  # held-out ones would be trained on
        with pytest.raises(ValueError, match="had other cells"):
            um.tl.autoencoder(cells.copy(), **options, resume=True)
    number.uns[kind]["params"]["layer"] = 0.5
    with pytest.raises(KeyError, match="0.5"):
        um.tl.autoencoder(number, **options, resume=True)
    um.tl.autoencoder(kept, **options, resume=True)
    assert kept.uns[kind]["finished"]
    for name in ("train", "validation", "learning_rate"):
        np.testing.assert_array_equal(kept.uns[kind]["history"][name], whole.uns[kind]["history"][name])
    np.testing.assert_array_equal(kept.obsm[f"X_{kind}"], whole.obsm[f"X_{kind}"])


def test_an_interrupt_before_the_first_epoch_has_ended_has_nothing_to_keep(monkeypatch):
    from unmix.core.autoencoder import Trainer

    def interrupted(self, *args):
        raise KeyboardInterrupt

    adata = planted()
    monkeypatch.setattr(Trainer, "_held_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        um.tl.autoencoder(adata, **ARGUMENTS, on_interrupt="keep")
    assert not adata.uns
    assert not adata.obsm


def test_zeros_that_are_stored_are_zeros():
    """As thinning or ambient correction leaves them; taken for counts, they could not have dropped out."""
    adata = planted()
    stored, at = sparse.coo_array(adata.X), np.random.default_rng(0).integers(0, (400, 120), (2000, 2)).T
    data, rows, columns = (
        np.concatenate(p) for p in ((stored.data, 0 * at[0]), (stored.row, at[0]), (stored.col, at[1]))
    )
    thin = adata.copy()
    thin.X = sparse.csr_matrix((data.astype(np.float32), (rows, columns)), adata.shape)
    assert (thin.X.data == 0).any()
    np.testing.assert_array_equal(latent(thin, likelihood="zinb"), latent(adata, likelihood="zinb"))


@pytest.mark.filterwarnings("ignore::unmix._adata.read.CountsWarning")
def test_counts_that_are_no_whole_numbers_give_the_same_dense_and_sparse():
    """Totals decide which cells are held out: added up in single precision, they gave another split, and another network."""
    dense = planted()
    dense.X = np.asarray(sparse.csr_array(dense.X).toarray() * 0.93, np.float32)
    thin = dense.copy()
    thin.X = sparse.csr_matrix(dense.X)
    np.testing.assert_array_equal(latent(thin), latent(dense))


def test_real_values_may_have_negative_means():
    """Scaled data have a mean of 0 per gene: only the silent gene is without a precision, and nothing is to warn of."""
    adata = planted()
    X = np.log1p(np.asarray(adata.X.todense() if sparse.issparse(adata.X) else adata.X))
    adata.X = np.asarray(X - X.mean(axis=0) - 0.1)
    um.tl.autoencoder(adata, 4, likelihood="gaussian", max_epochs=2)
    assert np.flatnonzero(adata.var["ae_dispersion"].isna()).tolist() == [5]
    assert np.isfinite(adata.obsm["X_ae"]).all()


def test_resuming_takes_over_what_the_network_and_the_data_were(monkeypatch, tmp_path):
    """Not repeated, and stored: likelihood, layer, batches. Another batch of as many levels would be trained on unseen."""
    from unmix.core.autoencoder import Trainer

    adata = planted()
    adata.layers["logged"] = np.log1p(adata.X)
    adata.obs["batch"], adata.obs["other"] = np.tile(["a", "b"], 200), np.repeat(["a", "b"], 200)
    told = {"n_latent": 4, "likelihood": "gaussian", "layer": "logged", "batch_key": "batch"}
    whole = um.tl.autoencoder(adata, **told, max_epochs=2, copy=True)
    epoch = Trainer._epoch

    def interrupted(self, state):
        if state.epoch == 1:
            raise KeyboardInterrupt
        epoch(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", interrupted)
        um.tl.autoencoder(adata, **told, max_epochs=2, on_interrupt="keep")
    adata.write_h5ad(tmp_path / "kept.h5ad")
    kept = ad.read_h5ad(tmp_path / "kept.h5ad")
    for option, value in {"batch_key": "other", "covariates": ["other"], "layer": "nothing"}.items():
        with pytest.raises(ValueError, match=f"had {option}="):
            um.tl.autoencoder(kept, resume=True, **{option: value})
    um.tl.autoencoder(kept, resume=True, max_epochs=2)
    np.testing.assert_array_equal(kept.obsm["X_ae"], whole.obsm["X_ae"])
    for option, value in told.items():
        assert kept.uns["ae"]["params"][option] == value


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="`kind` must be one of"):
        um.tl.autoencoder(planted(), kind="gan")
    with pytest.raises(ValueError, match="at least 10 observations"):
        um.tl.autoencoder(planted(n=5), likelihood="nb")
    with pytest.raises(KeyError, match="no interrupted training"):
        um.tl.autoencoder(planted(), resume=True, likelihood="nb")
