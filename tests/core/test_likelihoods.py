import itertools
import math

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats

from unmix.core._zinb_kernels import LGAMMA_TABLE, nb_rows
from unmix.core._zinb_kernels import rising_terms as rising_terms_compiled
from unmix.core.likelihoods import log_prob, log_prob_nonzero, rising_terms
from unmix.core.networks import BOUNDS

MEANS = [1e-6, 1e-3, 1.0, 7.3, 300.0, 1e6]
DISPERSIONS = [1e-4, 0.5, 9.99, 10.01, 1e4, 1e8]
COUNTS = [0, 1, 2, 40, 1000, 100_000]
DROPOUTS = [0.0, 1e-12, 0.1, 0.999, 1.0]


def exact(x, a, t, q):
    """log ZINB at 50 digits."""
    with mpmath.workdps(50):
        mu, theta = mpmath.exp(mpmath.mpf(a)), mpmath.exp(mpmath.mpf(t))
        pi = mpmath.mpf(q > 0) if math.isinf(q) else 1 / (1 + mpmath.exp(-mpmath.mpf(q)))
        nb = mpmath.loggamma(x + theta) - mpmath.loggamma(theta) - mpmath.loggamma(x + 1)
        nb += theta * mpmath.log(theta / (theta + mu)) + x * mpmath.log(mu / (theta + mu))
        p = (1 - pi) * mpmath.exp(nb) + (pi if x == 0 else 0)
        return float(mpmath.log(p)) if p > 0 else -math.inf


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_zinb_is_exact_over_the_whole_range(dtype, tolerance):
    mu, theta, x, pi = (
        np.array(v, float) for v in zip(*itertools.product(MEANS, DISPERSIONS, COUNTS, DROPOUTS), strict=True)
    )
    with np.errstate(divide="ignore"):
        logits = np.log(pi) - np.log1p(-pi)
    params = [torch.tensor(v, dtype=dtype) for v in (np.log(mu), np.log(theta), logits)]
    found = log_prob(torch.tensor(x, dtype=dtype), "zinb", *params).double().numpy()
    wanted = np.array([exact(int(k), *map(float, p)) for k, *p in zip(x, *params, strict=True)])
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~finite], wanted[~finite])
    np.testing.assert_allclose(found[finite], wanted[finite], rtol=tolerance, atol=0)


def test_agrees_with_scipy():
    x = np.arange(60.0)
    mu, theta, pi = 4.1, 2.3, 0.2
    wanted = (1 - pi) * stats.nbinom.pmf(x, theta, theta / (theta + mu)) + pi * (x == 0)
    params = [torch.tensor([v], dtype=torch.float64) for v in (math.log(mu), math.log(theta), math.log(pi / (1 - pi)))]
    np.testing.assert_allclose(log_prob(torch.tensor(x), "zinb", *params).exp(), wanted, rtol=1e-12)
    np.testing.assert_allclose(log_prob(torch.tensor(x), "poisson", params[0]), stats.poisson.logpmf(x, mu), rtol=1e-12)
    gauss = log_prob(torch.tensor(x), "gaussian", params[0], params[1])
    np.testing.assert_allclose(gauss, stats.norm.logpdf(x, math.log(mu), theta**-0.5), rtol=1e-12)


def test_large_dispersion_is_poisson():
    x = torch.tensor([0.0, 1.0, 2.0, 30.0], dtype=torch.float64)
    a = torch.tensor([0.7], dtype=torch.float64)
    nb = log_prob(x, "nb", a, torch.tensor([math.log(1e8)], dtype=torch.float64))
    np.testing.assert_allclose(nb, log_prob(x, "poisson", a), atol=1e-5)


@pytest.mark.parametrize("likelihood", ["poisson", "nb", "zinb", "gaussian"])
def test_gradients_equal_finite_differences(likelihood):
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((40,), 1.5, dtype=torch.float64), generator=generator)
    x[:2] = torch.tensor([37.0, 400.0])
    count = {"poisson": 1, "nb": 2, "gaussian": 2, "zinb": 3}[likelihood]
    params = [torch.randn(40, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(count)]
    torch.autograd.gradcheck(lambda *p: log_prob(x, likelihood, *p), params, eps=1e-6, atol=1e-5, rtol=1e-5)


def test_gradients_equal_autograd_of_the_textbook_formula():
    generator = torch.Generator().manual_seed(1)
    x = torch.poisson(torch.full((50, 6), 1.2, dtype=torch.float64), generator=generator)
    shapes = [(50, 6), (1, 6), (50, 1)]
    ours = [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]
    plain = [p.detach().clone().requires_grad_() for p in ours]
    log_prob(x, "zinb", *ours).sum().backward()
    mu, theta, pi = plain[0].exp(), plain[1].exp(), torch.sigmoid(plain[2])
    nb = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    nb = nb + theta * torch.log(theta / (theta + mu)) + x * torch.log(mu / (theta + mu))
    torch.log((1 - pi) * nb.exp() + pi * (x == 0)).sum().backward()
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-9, atol=1e-11)


def test_dispersion_gradient_survives_the_poisson_limit():
    t = torch.tensor([math.log(1e5)], requires_grad=True)
    log_prob(torch.tensor([3.0]), "nb", torch.tensor([0.0]), t).sum().backward()
    wanted = -((3 - 1) ** 2 - 3) / (2 * 1e5)  # leading term in 1 / theta
    np.testing.assert_allclose(t.grad, wanted, rtol=1e-3)


@pytest.mark.parametrize("x", [1.0, 2.0, 31.0, 32.0, 33.0, 500.0])
@pytest.mark.parametrize("theta", [1e-3, 0.7, 15.0, 1e6])
def test_rising_terms_are_the_sums_they_stand_for(x, theta):
    k = np.arange(int(x))
    wanted = np.log1p(k / theta).sum(), (k / (theta + k)).sum()
    found = rising_terms(torch.tensor(x, dtype=torch.float64), torch.tensor(theta, dtype=torch.float64))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)
    product, rest, S = rising_terms_compiled(x, theta)
    np.testing.assert_allclose((math.log(product) + rest, S), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("inflated", [True, False])
@pytest.mark.parametrize("per_cell", [True, False])
def test_fused_pass_equals_the_likelihood(inflated, per_cell):
    rng = np.random.default_rng(0)
    n, G = 20, 1100  # more than one chunk of genes
    X = sparse.csr_array(np.where(rng.random((n, G)) < 0.1, rng.geometric(0.4, (n, G)), 0).astype(float))
    X.sort_indices()
    X.data[:3] = 3000, 40, 33
    A, Q = (rng.normal(-1, 1.5, (n, G)).astype(np.float32) for _ in range(2))
    T = rng.normal(1, 2, (n if per_cell else 1, G)).clip(-9, 18).astype(np.float32)
    size = rng.normal(0, 0.3, n).astype(np.float32)
    a, q, t = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (A, Q, T))
    params = (a + torch.tensor(size).double()[:, None], t, q)[: 3 if inflated else 2]
    loss = -log_prob(torch.tensor(X.toarray()).double(), "zinb" if inflated else "nb", *params).sum(1)
    loss.sum().backward()
    codes, grad_T = (np.arange(n), T) if per_cell else (np.zeros(n, np.int64), np.zeros_like(T))
    csr = X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data.astype(np.float32)
    found = np.empty(n)
    heads = [v[:, None] for v in (A, Q, T, grad_T)]
    nb_rows(
        heads[0], heads[1], 0, heads[2], 0, codes, size, *csr, heads[3], not per_cell, inflated, 0.0, BOUNDS,
        LGAMMA_TABLE, found,
    )  # fmt: skip
    np.testing.assert_allclose(found, loss.detach(), rtol=1e-6)
    np.testing.assert_allclose(A, a.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grad_T, t.grad, rtol=1e-3, atol=2e-5)
    if inflated:
        np.testing.assert_allclose(Q, q.grad, rtol=1e-4, atol=1e-6)


def test_refuses_unknown_likelihoods_and_wrong_parameters():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="must be one of"):
        log_prob(x, "binomial", x)
    with pytest.raises(ValueError, match="takes mean, dispersion"):
        log_prob_nonzero(torch.zeros(0, dtype=torch.long), x[:0], x.shape, "nb", x)


def golden(shared_data):
    folder = shared_data / "zinb_golden_r"
    data = pd.read_csv(folder / "biochemists.tsv", sep="\t")
    design = np.column_stack([np.ones(len(data)), data[["fem", "mar", "kid5", "phd", "ment"]]])
    nb = pd.read_csv(folder / "biochemists-nb-coef.tsv", sep="\t")["val"].to_numpy()
    zinb = pd.read_csv(folder / "biochemists-zinb-coef.tsv", sep="\t")
    both = torch.tensor(np.r_[zinb["count"][:6], np.log(zinb["count"][6]), zinb["zero"][:6]])
    nb = torch.tensor(np.r_[nb[:6], np.log(nb[6])])
    return torch.tensor(data["art"].to_numpy(float)), torch.tensor(design), nb, both


def total(x, D, w):
    params = [D @ w[:6], w[6:7]] + ([D @ w[7:]] if len(w) > 7 else [])
    return log_prob(x, "zinb" if len(w) > 7 else "nb", *params).sum()


@pytest.mark.realdata
def test_golden_fits_of_r(shared_data):
    x, D, nb, zinb = golden(shared_data)
    for w, wanted in ((nb, -1560.958), (zinb, -1549.991)):
        w.requires_grad_()
        value = total(x, D, w)
        value.backward()
        assert abs(value.item() - wanted) < 1e-3
        assert w.grad.abs().max() < 0.1  # R stops at a relative change of 1e-8 of the likelihood


@pytest.mark.realdata
def test_linear_model_reaches_the_coefficients_of_r(shared_data):
    x, D, nb, zinb = golden(shared_data)
    for wanted in (nb, zinb):
        w = torch.zeros_like(wanted, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [w], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def closure(w=w, optimiser=optimiser):
            optimiser.zero_grad()
            loss = -total(x, D, w)
            loss.backward()
            return loss

        optimiser.step(closure)
        np.testing.assert_allclose(w.detach(), wanted, rtol=0, atol=2e-3)
        assert total(x, D, w.detach()) >= total(x, D, wanted) - 1e-6
