import numpy as np
import pytest

import unmix as um


@pytest.fixture(scope="module")
def fitted():
    spots, reference = um.datasets.simulate_spots(150, 400, 6, platform_sd=0.6, depth=4000.0, rng=1)
    um.tl.deconvolve(spots, reference, groupby="cell_type")
    return spots, reference


def test_the_default_says_what_it_chose(fitted):
    spots, _ = fitted
    entry = spots.uns["deconvolve"]
    assert entry["tau"] == pytest.approx(0.6, rel=0.3)
    assert set(entry["chosen"]) == {"tau", "dispersion", "genes", "scale"}
    assert list(entry["worst_genes"].columns) == ["counts", "fitted"]


def test_the_default_beats_a_plain_likelihood_across_platforms(fitted):
    spots, reference = fitted
    truth = spots.obsm["truth_proportions"]
    own = um.metrics.evaluate(spots.obsm["deconvolve"], truth)["rmse"]
    um.tl.deconvolve(spots, reference, groupby="cell_type", method="poisson", key_added="plain")
    assert own < 0.95 * um.metrics.evaluate(spots.obsm["plain"], truth)["rmse"]


def test_types_at_zero_have_no_detection_and_no_error(fitted):
    spots, _ = fitted
    P, se = spots.obsm["deconvolve"].to_numpy(), spots.obsm["deconvolve_se"].to_numpy()
    detection = spots.obsm["deconvolve_detection"].to_numpy()
    np.testing.assert_allclose(P.sum(axis=1), 1.0)
    assert (P == 0).any()
    assert (detection[P == 0] == 0).all()
    assert (detection[P > 0] > 0.5).all()
    assert np.isfinite(se).all()


def test_detected_types_are_there(fitted):
    spots, _ = fitted
    there = spots.obsm["truth_proportions"].to_numpy() > 0
    assert there[spots.obsm["deconvolve_detection"].to_numpy() > 0.99].mean() > 0.9
