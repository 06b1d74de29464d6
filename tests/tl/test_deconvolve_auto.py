import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import unmix as um
from unmix._adata.read import CountsWarning


@pytest.fixture(scope="module")
def fitted():
    spots, reference = um.datasets.simulate_spots(150, 400, 6, platform_sd=0.6, depth=4000.0, rng=1)
    um.tl.deconvolve(spots, reference, groupby="cell_type")
    return spots, reference


def test_the_default_says_what_it_chose(fitted):
    spots, _ = fitted
    entry = spots.uns["deconvolve"]
    assert entry["tau"] == pytest.approx(0.6, rel=0.3)
    always = {"tau", "dispersion", "genes", "scale", "amounts", "cells_per_spot", "errors", "contamination"}
    assert set(entry["chosen"]) == always
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
    assert (detection[P == 0] < 0.05).all()
    assert (detection[P > 0] >= 0.05).all()
    assert np.isfinite(se).all()


def test_errors_are_withheld_where_those_of_a_table_are_not_known(fitted):
    spots, reference = fitted
    table = um.pp.signatures(reference, "cell_type", copy=True).varm["signatures"]
    out = um.tl.deconvolve(spots, table, copy=True)
    assert out.obsm["deconvolve_se"].isna().all(axis=None)
    assert out.obsm["deconvolve_detection"].isna().all(axis=None)
    assert out.uns["deconvolve"]["chosen"]["errors"].startswith("withheld")


def test_detected_types_are_there(fitted):
    spots, _ = fitted
    there = spots.obsm["truth_proportions"].to_numpy() > 0
    assert there[spots.obsm["deconvolve_detection"].to_numpy() > 0.99].mean() > 0.9


def test_a_type_that_the_reference_lacks_becomes_unknown():
    spots, reference = um.datasets.simulate_spots(150, 400, 6, missing_type="type_2", depth=4000.0, rng=2)
    um.tl.deconvolve(spots, reference, groupby="cell_type", unknown=True)
    truth = spots.obsm["truth_proportions"]["type_2"]
    assert np.corrcoef(spots.obs["deconvolve_unknown"], truth)[0, 1] > 0.9
    np.testing.assert_allclose(spots.obsm["deconvolve"].sum(axis=1), 1.0)
    assert list(spots.uns["deconvolve"]["names"])[-1] == "unknown"
    assert "unknown" in um.get.proportions(spots, as_rna=True)


def test_no_unknown_type_where_the_reference_is_complete(fitted):
    spots, reference = fitted
    out = um.tl.deconvolve(spots, reference, groupby="cell_type", unknown=True, copy=True)
    assert (out.obs["deconvolve_unknown"] == 0).all()
    np.testing.assert_array_equal(out.obsm["deconvolve"], spots.obsm["deconvolve"])


def test_donors_told_apart_are_no_platform():
    spots, reference = um.datasets.simulate_spots(150, 500, 8, n_donors=4, donor_sd=0.3, rng=0)
    truth = spots.obsm["truth_proportions"]
    errors = []
    for batch_key in (None, "donor"):
        um.tl.deconvolve(spots, reference, groupby="cell_type", batch_key=batch_key)
        errors.append(um.metrics.evaluate(spots.obsm["deconvolve"], truth)["rmse"])
    assert errors[1] < 0.7 * errors[0]


def test_smoothing_is_chosen_where_there_is_a_graph():
    spots, reference = um.datasets.simulate_spots(200, 300, 5, depth=150.0, smoothness=6.0, rng=3)
    distance = np.linalg.norm(spots.obsm["spatial"][:, None] - spots.obsm["spatial"], axis=2)
    step = np.sort(distance, axis=1)[:, 1].min()
    spots.obsp["spatial_connectivities"] = sparse.csr_matrix(((distance < 1.5 * step) & (distance > 0)).astype(float))
    truth = spots.obsm["truth_proportions"]
    errors = []
    for smoothing in (None, "auto"):
        um.tl.deconvolve(spots, reference, groupby="cell_type", smoothing=smoothing)
        errors.append(um.metrics.evaluate(spots.obsm["deconvolve"], truth)["rmse"])
    assert list(spots.uns["deconvolve"]["smoothing_curve"].columns) == ["strength", "neighbours", "others"]
    assert errors[1] < errors[0]


def test_numbers_of_cells_follow_from_the_cells_of_a_spot(fitted):
    spots, reference = fitted
    out = um.tl.deconvolve(spots, reference, groupby="cell_type", cells_per_spot="n_cells", copy=True)
    np.testing.assert_allclose(out.obsm["deconvolve_cells"].sum(axis=1), spots.obs["n_cells"])
    np.testing.assert_array_equal(out.obsm["deconvolve"], spots.obsm["deconvolve"])


def test_the_test_of_the_fit_holds_its_level_and_finds_what_does_not_fit(fitted):
    spots, reference = fitted
    assert (spots.obs["deconvolve_misfit"] < 0.05).mean() < 0.1
    odd = spots.copy()
    X = odd.X.toarray()
    X[:10] = np.random.default_rng(0).permuted(X[:10], axis=1)
    odd.X = sparse.csr_matrix(X)
    um.tl.deconvolve(odd, reference, groupby="cell_type")
    found = (odd.obs["deconvolve_misfit"] < 0.001).to_numpy()
    assert found[:10].all()
    assert found[10:].mean() < 0.05


def test_numbers_of_cells_that_are_text_are_refused(fitted):
    spots = fitted[0].copy()
    spots.obs["how_many"] = pd.Categorical(["unknown"] * spots.n_obs)
    with pytest.raises(ValueError, match="must give a number of cells"):
        um.tl.deconvolve(spots, fitted[1], groupby="cell_type", cells_per_spot="how_many")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothing": "auto"}, "spatial_neighbors"),
        ({"smoothing": -1.0}, "number >= 0"),
        ({"method": "nnls", "unknown": True}, "method='auto'"),
        ({"cells_per_spot": 0}, "positive"),
        ({"batch_key": "who"}, "who"),
        ({"cells_per_spot": "how_many"}, "how_many"),
    ],
)
def test_what_cannot_be_is_refused(fitted, options, message):
    spots, reference = fitted
    with pytest.raises((ValueError, KeyError), match=message):
        um.tl.deconvolve(spots, reference, groupby="cell_type", **options)


def test_spots_without_counts_are_said_to_be_empty():
    spots, reference = um.datasets.pbmc_spots(shape=(2, 3))
    spots.X = sparse.csr_matrix(spots.shape, dtype=np.float32)
    with pytest.warns(CountsWarning, match="none of the 6"):
        um.tl.deconvolve(spots, reference, groupby="cell_type")
    assert spots.obsm["deconvolve"].isna().all(axis=None)
    assert (spots.obs["deconvolve_status"] != "ok").all()


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
@pytest.mark.parametrize("n_genes", [2, 200])
def test_one_cell_of_each_type_is_enough_for_an_answer(n_genes):
    spots, reference = um.datasets.pbmc_spots(shape=(2, 3))
    first = ~reference.obs["cell_type"].duplicated()
    genes = np.argsort(-np.asarray(reference.X.mean(axis=0)).ravel(), kind="stable")[:n_genes]
    um.tl.deconvolve(spots, reference[first, genes].copy(), groupby="cell_type", genes="all")
    found = spots.obsm["deconvolve"].to_numpy()
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (found >= 0).all()


def test_bulk_by_few_cells_knows_that_their_mean_size_is_a_guess():
    """Intervals covered .70: a type's size was taken for known, and with deep counts little else is uncertain."""
    covered = []
    for seed in range(3):
        spots, reference = um.datasets.simulate_spots(
            12, 400, 6, rng=seed, cells_per_type=15, cell_depth=8000.0, size_sd=0.6, depth=1e5
        )
        rng = np.random.default_rng(seed)
        kept = np.clip(0.25 * rng.lognormal(0, 0.6, reference.n_obs), 0, 1)
        X = sparse.csr_matrix(reference.X)
        X.data = rng.binomial(X.data.astype(int), np.repeat(kept, np.diff(X.indptr))).astype(float)
        reference.X = X
        truth = spots.obsm["truth_proportions"]
        um.tl.deconvolve(spots, reference, groupby="cell_type", cells_per_spot=float("inf"))
        covered.append(np.nanmean(um.metrics.coverage(spots.obsm["deconvolve"], spots.obsm["deconvolve_se"], truth)))
    assert 0.83 < np.mean(covered) < 0.98
