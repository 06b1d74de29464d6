import anndata
import numpy as np
import pytest

import unmix as um

DIFFICULTIES = [
    {},
    {"platform_sd": 0.6},
    {"ambient": 0.3},
    {"size_sd": 0.8},
    {"n_donors": 3, "donor_sd": 0.4},
    {"missing_type": "type_1", "cells_per_type": {"type_0": 3}},
    {"platform_sd": 0.6, "ambient": 0.3, "size_sd": 0.8, "donor_sd": 0.4},
]


def simulate(**options):
    return um.datasets.simulate_spots(**({"n_spots": 1500, "n_genes": 60, "n_types": 4} | options))


def expected_counts(spots):
    """Given a spot's total, its counts are multinomial with these means."""
    params = spots.uns["simulation"]["params"]
    rna = spots.obsm["truth_umi_fractions"].to_numpy() @ spots.varm["truth_profiles"].to_numpy().T
    rate = (1 - params["ambient"]) * rna + params["ambient"] * spots.var["ambient_profile"].to_numpy()
    rate *= spots.var["platform_factor"].to_numpy()
    return rate / rate.sum(axis=1, keepdims=True) * spots.X.sum(axis=1).A1[:, None]


@pytest.mark.parametrize("options", DIFFICULTIES, ids=lambda options: "-".join(options) or "plain")
def test_counts_are_multinomial_around_the_stored_truth(options):
    spots, _ = simulate(**options)
    X, mean = spots.X.toarray(), expected_counts(spots)
    z = (X.sum(axis=0) - mean.sum(axis=0)) / np.sqrt(mean.sum(axis=0))
    assert np.abs(z).max() < 4.5
    chi_square = ((X - mean) ** 2 / mean).sum()
    freedom = X.shape[0] * (X.shape[1] - 1)
    assert abs(chi_square - freedom) < 6 * np.sqrt(2 * freedom)


def test_sizes_turn_cells_into_rna():
    spots, reference = simulate(size_sd=0.8, depth_sd=0, cell_depth=20000)
    sizes = spots.uns["simulation"]["type_sizes"]
    rna = spots.obsm["truth_counts"] * sizes
    np.testing.assert_allclose(spots.obsm["truth_umi_fractions"], rna.div(rna.sum(axis=1), axis=0))
    reference.obs["total"] = reference.X.sum(axis=1).A1
    total = reference.obs.groupby("cell_type", observed=True)["total"].mean()
    np.testing.assert_allclose(total / 20000, sizes, rtol=0.02)


def test_truth_is_consistent_and_sparse():
    spots, _ = simulate(n_types=9, types_per_spot=3, cells_per_spot=30)
    counts = spots.obsm["truth_counts"]
    assert (counts > 0).sum(axis=1).max() == 3
    np.testing.assert_array_equal(counts.sum(axis=1), spots.obs["n_cells"])
    np.testing.assert_allclose(spots.obsm["truth_proportions"].sum(axis=1), 1)
    np.testing.assert_allclose(spots.varm["truth_profiles"].sum(), 1)


@pytest.mark.parametrize("depth", [300, 8000])
def test_depth_is_the_mean(depth):
    spots, _ = simulate(depth=depth)
    total = spots.X.sum(axis=1).A1
    assert abs(total.mean() - depth) < 4 * total.std() / np.sqrt(len(total))


def test_dispersion_is_that_of_the_variance():
    spots, reference = simulate(dispersion=0.5, types_per_spot=1, depth_sd=0, cells_per_spot=1, n_types=2)
    group = spots[spots.obsm["truth_counts"]["type_0"] > 0].X.toarray()
    cells = reference[reference.obs["cell_type"] == "type_0"]
    mean, variance = group.mean(axis=0), group.var(axis=0, ddof=1)
    assert np.median((variance - mean) / mean**2) == pytest.approx(0.5, rel=0.1)
    assert cells.X.toarray().var(axis=0).sum() > 5 * cells.X.toarray().mean(axis=0).sum()


def test_platform_and_donor_factors_have_their_sd():
    spots, reference = simulate(
        n_genes=400, platform_sd=0.6, n_donors=2, donor_sd=0.4, cell_depth=1e6, depth_sd=0, n_spots=50
    )
    assert np.log(spots.var["platform_factor"]).std() == pytest.approx(0.6, rel=0.15)
    assert spots.var["platform_factor"].mean() == pytest.approx(1, abs=0.15)
    one = reference[reference.obs["cell_type"] == "type_0"]
    first, second = (one[one.obs["donor"] == f"donor_{d}"].X.sum(axis=0).A1 for d in (0, 1))
    assert np.std(np.log(first / second)) == pytest.approx(0.4 * np.sqrt(2), rel=0.15)
    tissue = np.log(spots.varm["truth_profiles"] / reference.varm["truth_profiles"])
    np.testing.assert_allclose(tissue.std(), 0.4, rtol=0.15)


def test_a_missing_type_is_in_the_tissue_only():
    spots, reference = simulate(missing_type="type_1", cells_per_type={"type_0": 3, "type_1": 7, "type_2": 20})
    assert reference.obs["cell_type"].value_counts().to_dict() == {"type_0": 3, "type_2": 20, "type_3": 50}
    assert list(reference.obs["cell_type"].cat.categories) == ["type_0", "type_2", "type_3"]
    assert spots.obsm["truth_proportions"]["type_1"].mean() > 0.05
    assert "type_1" not in reference.varm["truth_profiles"]


def test_markers_are_higher_in_their_type():
    spots, _ = simulate(n_genes=300, n_markers=10)
    profiles = np.log(spots.varm["truth_profiles"])
    rest = (profiles.sum(axis=1).to_numpy()[:, None] - profiles) / 3
    assert ((profiles - rest) > np.log(3)).sum().between(9, 14).all()


def test_smoothness_zero_is_no_smoothness():
    def likeness(smoothness):
        spots, _ = simulate(smoothness=smoothness, n_spots=1600, cells_per_spot=30)
        share = spots.obsm["truth_proportions"]["type_0"].to_numpy().reshape(40, 40)
        return np.corrcoef(share[:, 1:].ravel(), share[:, :-1].ravel())[0, 1]

    assert abs(likeness(0)) < 0.1
    assert likeness(5) > 0.6


def test_the_seed_decides_everything(tmp_path):
    one, two, other = (simulate(rng=rng)[0] for rng in (7, np.random.default_rng(7), 8))
    assert (one.X != two.X).nnz == 0
    assert (one.X != other.X).nnz > 0
    one.write_h5ad(tmp_path / "spots.h5ad")
    back = anndata.read_h5ad(tmp_path / "spots.h5ad")
    assert (back.X != one.X).nnz == 0
    assert back.uns["simulation"]["params"]["depth"] == 5000
    assert not one.X.has_sorted_indices or one.X.has_canonical_format


@pytest.mark.parametrize(
    "option, value",
    [
        ("n_spots", 0),
        ("types_per_spot", 0),
        ("depth", 0),
        ("ambient", 1),
        ("missing_type", "T cell"),
        ("cells_per_type", 0),
        ("cells_per_type", {"T cell": 3}),
        ("donor_sd", -1),
    ],
)
def test_options_out_of_range_are_named(option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        simulate(**{option: value})
