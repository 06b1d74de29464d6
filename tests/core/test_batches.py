"""Factors of genes between batches: planted ones are found, and differences in composition are not mistaken for them."""

import numpy as np
from scipy import sparse

from unmix.core.batches import divided, gene_factors


def planted(alphas, sd, seed=0):
    r = np.random.default_rng(seed)
    batch = np.repeat([0, 1], 300)
    W, H = np.vstack([r.dirichlet(alphas[b]) for b in batch]), r.gamma(0.2, 1, (3, 200))
    F = np.exp(r.normal(0, sd, (2, 200)))
    rate = r.lognormal(6, 0.3, (600, 1)) * (W @ (H / H.sum(axis=1, keepdims=True))) * F[batch]
    return sparse.csr_array(r.poisson(rate).astype(np.float32)), batch, np.log(F[1] / F[0])


def logratio(X, batch, k):
    f = gene_factors(X, batch, k)
    return np.log(f[1] / f[0])


def test_planted_factors_are_found_whatever_the_composition():
    for alphas, least in (([[0.2] * 3] * 2, 0.98), ([[0.4, 0.2, 0.1], [0.1, 0.2, 0.4]], 0.93)):
        X, batch, truth = planted(alphas, 0.7)
        common = X.sum(axis=0) > 500
        for k in (3, 4):  # one program too many must not take the batch's place
            assert np.corrcoef(logratio(X, batch, k)[common], truth[common])[0, 1] > least


def test_a_different_composition_alone_is_no_batch_effect():
    X, batch, _ = planted([[0.4, 0.2, 0.1], [0.1, 0.2, 0.4]], 0.0)
    common = X.sum(axis=0) > 500
    naive = np.log((X[batch == 1].sum(axis=0) + 10) / (X[batch == 0].sum(axis=0) + 10))
    assert np.abs(logratio(X, batch, 3)[common]).mean() < 0.25 * np.abs(naive[common]).mean()


def test_rare_genes_keep_their_counts_and_division_undoes_factors():
    X, batch, _ = planted([[0.2] * 3] * 2, 0.5)
    dense = X.toarray()
    dense[:, 3], dense[0, 3] = 0, 1
    X = sparse.csr_array(dense)
    f = gene_factors(X, batch, 2)
    assert 0.7 < f[1, 3] / f[0, 3] < 1.4
    np.testing.assert_allclose(divided(X, batch, f).toarray() * f[batch], X.toarray(), rtol=1e-5)


def test_a_few_cells_full_of_a_gene_are_no_batch_effect():
    r = np.random.default_rng(0)
    rate = r.dirichlet([0.3] * 3, 900) @ r.gamma(0.3, 1, (3, 100))
    bursts = r.gamma(0.02, 50, rate.shape)
    X, batch = sparse.csr_array(r.poisson(rate * bursts * 3).astype(np.float32)), np.repeat([0, 1], [800, 100])
    chance = X[batch == 1].sum(axis=0) > 30
    assert np.abs(logratio(X, batch, 4)[chance]).mean() < 0.3
