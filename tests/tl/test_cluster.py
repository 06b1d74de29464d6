"""Every tool on a cluster of two workers: the numbers of one machine, also when a worker is killed on the way."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
PROFILES = RNG.gamma(0.5, 2.0, (3, 60))
TYPES = ["a", "b", "c"]
GENES = [f"g{i}" for i in range(60)]
X = RNG.poisson(RNG.dirichlet(np.full(3, 0.4), 120) @ PROFILES * 8).astype(np.float32)
X[7] = 0
LABELS = np.repeat([0, 1, 2], 12)
CELLS = AnnData(
    sparse.csr_matrix(RNG.poisson(PROFILES[LABELS] * 8).astype(np.float32)),
    obs=pd.DataFrame({"type": np.array(TYPES)[LABELS]}, index=[f"cell{i}" for i in range(36)]),
    var=pd.DataFrame(index=GENES),
)


def spots(lazy):
    adata = AnnData(
        da.from_array(sparse.csr_matrix(X), chunks=(31, 60), asarray=False) if lazy else sparse.csr_matrix(X),
        obs=pd.DataFrame({"batch": ["one", "two"] * 60}, index=[f"s{i}" for i in range(120)]),
        var=pd.DataFrame(index=GENES),
    )
    return adata


@pytest.fixture(scope="module")
def fitted():
    """What new rows are mapped onto."""
    adata = spots(lazy=False)
    um.tl.autoencoder(adata, 3, likelihood="nb", max_epochs=1)
    um.tl.factorize(adata, 3, max_iter=20)
    um.tl.starfysh_archetypes(adata, 3, n_restarts=2)
    return adata


TABLE = pd.DataFrame(PROFILES.T, index=GENES, columns=TYPES)
SETS = {t: [GENES[i] for i in np.argsort(-PROFILES[k] / PROFILES.mean(axis=0))[:8]] for k, t in enumerate(TYPES)}
CASES = {
    "auto": (lambda a, f: um.tl.deconvolve(a, CELLS, groupby="type"), "deconvolve"),
    "nnls": (lambda a, f: um.tl.deconvolve(a, TABLE, method="nnls"), "deconvolve"),
    "archetypes": (
        lambda a, f: um.tl.starfysh_archetypes(a, 3, n_restarts=2, signatures=SETS),
        "archetypes_proportions",
    ),
    "svd": (lambda a, f: um.tl.factorize(a, 3, method="svd"), "X_svd"),
    "als": (lambda a, f: um.tl.factorize(a, 3, method="als", max_iter=4), "X_als"),
    "nmf": (lambda a, f: um.tl.factorize(a, 3, max_iter=4), "X_nmf"),
    "kl": (lambda a, f: um.tl.factorize(a, 3, loss="kl", max_iter=4, key_added="kl"), "X_kl"),
    "metagenes": (lambda a, f: um.tl.metagenes(a, 3, n_runs=3, max_distance=2.0, max_iter=50), "X_metagenes"),
    "joint batches": (lambda a, f: um.tl.joint_nmf(a, 3, batch_key="batch", max_iter=4), "X_joint_nmf"),
    "joint online": (lambda a, f: um.tl.joint_nmf(a, 3, batch_key="batch", online=1, max_iter=2), "X_joint_nmf"),
    "autoencoder": (lambda a, f: um.tl.autoencoder(a, 3, likelihood="nb", max_epochs=1), "X_ae"),
    "denoise": (lambda a, f: um.tl.denoise(a, f, genes=GENES[:4]), "ae_denoised"),
    "transform ae": (lambda a, f: um.tl.transform(a, f, key="ae"), "X_ae"),
    "transform nmf": (lambda a, f: um.tl.transform(a, f, key="nmf"), "X_nmf"),
    "transform archetypes": (lambda a, f: um.tl.transform(a, f, key="archetypes"), "archetypes"),
}


def result(adata, slot):
    value = adata.layers[slot] if slot in adata.layers else adata.obsm[slot]
    return np.asarray(value.toarray() if sparse.issparse(value) else value, dtype=float)


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_one_machine(client, fitted, name, monkeypatch):
    run, slot = CASES[name]
    here, there = spots(lazy=False), spots(lazy=True)
    run(here, fitted)
    submitted = []
    submit = type(client).submit
    monkeypatch.setattr(
        type(client), "submit", lambda self, *args, **options: submitted.append(1) or submit(self, *args, **options)
    )
    run(there, fitted)
    assert len(submitted) >= 4  # at least one pass over the four chunks
    np.testing.assert_allclose(result(there, slot), result(here, slot), rtol=1e-6, atol=1e-6)


def test_modalities(client):
    def modalities(lazy):
        rna, adt = spots(lazy), spots(lazy)
        return {"rna": rna[:, :40].copy(), "adt": adt[:, 40:].copy()}

    here, there = modalities(lazy=False), modalities(lazy=True)
    for data in (here, there):
        um.tl.joint_nmf(data, 3, loss={"rna": "kl", "adt": "frobenius"}, max_iter=4)
    np.testing.assert_allclose(there["rna"].obsm["X_joint_nmf"], here["rna"].obsm["X_joint_nmf"], rtol=1e-6, atol=1e-6)


def test_a_fit_goes_on_when_a_worker_is_killed(mortal, monkeypatch):
    here, there = spots(lazy=False), spots(lazy=True)
    um.tl.factorize(here, 3, loss="kl", max_iter=20)
    victim = min(mortal.run(os.getpid).values())
    submit, submitted = type(mortal).submit, []

    def submit_and_kill(self, *args, **options):
        submitted.append(1)
        if len(submitted) == 50:
            os.kill(victim, signal.SIGKILL)
        return submit(self, *args, **options)

    monkeypatch.setattr(type(mortal), "submit", submit_and_kill)
    um.tl.factorize(there, 3, loss="kl", max_iter=20)
    assert len(submitted) > 60
    np.testing.assert_allclose(there.obsm["X_nmf"], here.obsm["X_nmf"], rtol=1e-6, atol=1e-6)
