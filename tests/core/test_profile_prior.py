import numpy as np

from unmix.core import profile_prior
from unmix.core.profile_prior import SCALES, shrink_alike
from unmix.core.shrinkage import shrink_profiles


def reference(rng, n, G=1500):
    """Two lineages; two subtypes of the first differ by little, in few genes."""
    mean = rng.lognormal(0.0, 1.0, G)
    lineage = mean[:, None] * rng.lognormal(0.0, 0.7, (G, 2))
    subtype = lineage[:, 0] * np.where(rng.random(G) < 0.1, rng.lognormal(0.0, 0.5, G), 1.0)
    truth = np.column_stack([lineage[:, 0], subtype, lineage[:, 1]])
    S = rng.poisson(truth * n) / n
    return truth, S, np.maximum(S, 0.5 / n) / n


def slope(S, truth):
    """How much of a difference between the subtypes is true."""
    d, w = S[:, 0] - S[:, 1], 1 / truth.mean(axis=1)
    return (w * d * (truth[:, 0] - truth[:, 1])).sum() / (w * d * d).sum()


def test_differences_between_subtypes_are_believed_as_far_as_they_are_true():
    truth, S, V = reference(np.random.default_rng(0), 30.0)
    alone = shrink_profiles(S, V)
    alike = shrink_alike(S, alone)
    assert slope(alone.mean, truth) < 0.75
    assert abs(slope(alike.mean, truth) - 1) < 0.1
    assert ((alike.mean - truth) ** 2).sum() < ((alone.mean - truth) ** 2).sum()


def test_posterior_variances_are_those_of_the_errors():
    truth, S, V = reference(np.random.default_rng(1), 30.0)
    alike = shrink_alike(S, shrink_profiles(S, V))
    known = alike.variance > 1e-6 * truth**2
    assert known.mean() > 0.9
    squares = (alike.mean - truth)[known] ** 2 / alike.variance[known]
    # .455 is the median of chi-square; the gene's mean over only three types is taken as known, hence the 2.5
    assert 0.6 < np.median(squares) / 0.455 < 2.5


def test_moments_agree_with_dense_normal_algebra():
    rng = np.random.default_rng(2)
    d, noise = rng.normal(size=(4, 3)), rng.gamma(1.0, 1.0, (4, 3))
    root = rng.normal(size=(3, 3))
    U, pi = root @ root.T, rng.dirichlet(np.ones(len(SCALES)))
    first, second = profile_prior._posterior_moments(d, noise, U, pi)
    for g in range(4):
        logs, means, squares = [], [], []
        for s, p in zip(SCALES, pi, strict=True):
            total = s * U + np.diag(noise[g])
            gain = s * U @ np.linalg.inv(total)
            logs.append(np.log(p) - 0.5 * d[g] @ np.linalg.solve(total, d[g]) - 0.5 * np.linalg.slogdet(total)[1])
            means.append(gain @ d[g])
            squares.append(means[-1] ** 2 + np.diag(s * U - gain @ (s * U)))
        weight = np.exp(np.array(logs) - max(logs))
        weight /= weight.sum()
        np.testing.assert_allclose(first[g], weight @ np.array(means), rtol=1e-8)
        np.testing.assert_allclose(second[g], weight @ np.array(squares), rtol=1e-8)


def test_many_cells_leave_the_profiles_as_they_are():
    _, S, V = reference(np.random.default_rng(3), 1e6, G=200)
    np.testing.assert_allclose(shrink_alike(S, shrink_profiles(S, V)).mean, S, rtol=2e-2, atol=1e-3)


def test_profiles_without_sampling_are_left_alone():
    S = np.random.default_rng(4).gamma(1.0, 1.0, (20, 3))
    shrunk = shrink_profiles(S, np.zeros_like(S))
    assert shrink_alike(S, shrunk) is shrunk


def test_entries_of_few_counts_keep_their_gamma_posterior():
    _, S, V = reference(np.random.default_rng(5), 0.2, G=300)
    alone = shrink_profiles(S, V)
    few = alone.mean.mean(axis=1, keepdims=True) * alone.exposure < 0.5
    np.testing.assert_allclose(shrink_alike(S, alone).mean[few], alone.mean[few], rtol=0.01)
