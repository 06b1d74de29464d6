"""Archetypes of a tissue: recovery with known truth, what is stored, limits, pictures."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import sparse
from sklearn.metrics import adjusted_rand_score, roc_auc_score

import unmix as um


def tissue(n: int = 400, n_types: int = 3, seed: int = 0) -> tuple[ad.AnnData, np.ndarray, dict[str, list[str]]]:
    """Spots that mix types of 20 own genes each and 140 shared ones."""
    rng = np.random.default_rng(seed)
    genes = 20 * n_types + 140
    profile = rng.gamma(1.0, 1.0, (1, genes)) * np.ones((n_types, 1))
    for t in range(n_types):
        profile[t, 20 * t : 20 * (t + 1)] += 8
    profile /= profile.sum(axis=1, keepdims=True)
    truth = rng.dirichlet(np.full(n_types, 0.4), n)
    counts = rng.poisson(truth @ profile * 3000)
    names = [f"g{g}" for g in range(genes)]
    spots = ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(n)]),
        var=pd.DataFrame(index=names),
        obsm={"spatial": np.column_stack([np.arange(n) % 20, np.arange(n) // 20]).astype(float)},
    )
    return spots, truth, {f"T/{t}": names[20 * t : 20 * (t + 1)] for t in range(n_types)}


@pytest.fixture(scope="module")
def fitted():
    spots, truth, sets = tissue()
    um.tl.starfysh_archetypes(spots, signatures=sets)
    return spots, truth, sets


def test_three_types_are_counted_matched_and_measured(fitted):
    spots, truth, sets = fitted
    selection = um.get.archetypes(spots, what="selection")
    assert selection.loc[selection["chosen"].astype(bool), "n_archetypes"].item() == 3
    assert set(um.get.archetypes(spots, what="matching")["archetype"]) == {"archetype_1", "archetype_2", "archetype_3"}
    shares = um.get.archetypes(spots, what="proportions")
    assert list(shares.columns) == list(sets)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert np.sqrt(((shares.to_numpy() - truth) ** 2).mean()) < 0.07


def test_a_few_genes_of_large_variance_do_not_hide_archetypes():
    """As insulin does in a pancreas: permuted, they set a threshold once that left two archetypes for five types."""
    spots, truth, sets = tissue(300, 5)
    rng = np.random.default_rng(0)
    loud = rng.poisson(2000 * truth[:, [0]] * rng.gamma(1.0, 1.0, (300, 3)))
    spots.X = sparse.csr_matrix(np.hstack([spots.X.toarray()[:, :-3], loud]).astype(np.float32))
    um.tl.starfysh_archetypes(spots, signatures=sets, resolution=None)
    partners = um.get.archetypes(spots, what="matching")["archetype"].astype(str)
    assert partners.nunique() == 5
    assert "none" not in set(partners)


def test_matched_archetypes_carry_their_type_and_its_markers(fitted):
    spots, truth, sets = fitted
    matching = um.get.archetypes(spots, what="matching").astype(str)
    W = um.get.archetypes(spots)
    for t, row in matching.iterrows():
        assert np.corrcoef(W[row["archetype"]], truth[:, t])[0, 1] > 0.95
        assert roc_auc_score(truth[:, t] > 0.9, W[row["archetype"]]) > 0.95
        top = um.get.markers(spots, group=row["archetype"], n_genes=15, max_q=0.01)["gene"].astype(str)
        assert set(top) <= set(sets[row["type"]])


def test_weights_anchors_and_communities_are_consistent(fitted):
    spots, _, _ = fitted
    W = um.get.archetypes(spots)
    np.testing.assert_allclose(W.sum(axis=1), 1)
    assert (W.idxmax(axis=1) == spots.obs["archetypes"].astype(str)).all()
    anchors = um.get.archetypes(spots, what="anchors")
    np.testing.assert_allclose(anchors.groupby("archetype", observed=True)["weight"].sum(), 1)
    assert anchors["obs_name"].astype(str).isin(spots.obs_names).all()
    assert set(spots.obs["archetypes_anchor"]) == {*W.columns, "none"}


def test_refinement_drops_foreign_genes_and_adds_own_ones():
    spots, _, sets = tissue()
    given = {name: genes[:8] for name, genes in sets.items()}
    given["T/0"] = [*given["T/0"], *sets["T/1"][15:18]]
    um.tl.starfysh_archetypes(spots, 3, signatures=given, resolution=None)
    rounds = spots.uns["archetypes"]["signatures"]
    last = rounds[f"round_{len(rounds) - 1}"]
    assert not set(sets["T/1"][15:18]) & set(last["T_0"])
    assert set(last["T_0"]) > set(given["T/0"][:8])
    assert set(last["T_0"]) <= set(sets["T/0"])


def test_an_unrelated_set_stays_single_and_an_unknown_archetype_is_novel():
    spots, truth, sets = tissue()
    given = {name: sets[name] for name in ("T/0", "T/1")} | {"noise": [f"g{g}" for g in range(100, 120)]}
    um.tl.starfysh_archetypes(spots, 3, signatures=given, resolution=None)
    matching = um.get.archetypes(spots, what="matching").astype(str).set_index("type")["archetype"]
    assert matching["noise"] == "none"
    assert matching["T/0"] != "none"
    shares = um.get.archetypes(spots, what="proportions")
    assert list(shares.columns) == ["T/0", "T/1", "noise", "novel_1"]
    assert np.corrcoef(shares["novel_1"], truth[:, 2])[0, 1] > 0.95


@pytest.mark.parametrize("assignment, proposer", [("optimal", "types"), ("stable", "archetypes")])
def test_other_matchings_agree_where_the_answer_is_plain(fitted, assignment, proposer):
    spots, _, sets = fitted
    other = um.tl.starfysh_archetypes(spots, signatures=sets, assignment=assignment, proposer=proposer, copy=True)
    pd.testing.assert_frame_equal(
        um.get.archetypes(other, what="matching"), um.get.archetypes(spots, what="matching"), check_categorical=False
    )


def test_signatures_as_table_of_names_or_weights(fitted):
    spots, _, sets = fitted
    names = pd.DataFrame({k: pd.Series(v) for k, v in (sets | {"T/2": sets["T/2"][:15]}).items()})
    weights = pd.DataFrame(0.0, index=spots.var_names.str.upper(), columns=list(sets))
    for name, genes in sets.items():
        weights.loc[[g.upper() for g in genes], name] = 1.0
    for signatures in (names, weights):
        other = um.tl.starfysh_archetypes(spots, 3, signatures=signatures, resolution=None, copy=True)
        assert (um.get.archetypes(other, what="matching")["archetype"].astype(str) != "none").all()


def test_resolution_merges_and_none_does_not(fitted):
    spots, _, _ = fitted
    whole = um.tl.starfysh_archetypes(spots, 5, resolution=None, copy=True)
    merged = um.tl.starfysh_archetypes(spots, 5, resolution=1.0, copy=True)
    assert whole.obsm["archetypes"].shape[1] == 5
    assert merged.obsm["archetypes"].shape[1] == 1
    np.testing.assert_allclose(merged.obsm["archetypes"].to_numpy(), 1)


def test_rows_without_counts_and_hostile_input():
    spots, _, sets = tissue(60)
    spots.X = sparse.csr_matrix(sparse.diags_array((np.arange(60) != 3).astype(np.float32)) @ spots.X)
    um.tl.starfysh_archetypes(spots, 3, signatures=sets, robust=True)
    assert np.isnan(spots.obsm["archetypes"].iloc[3]).all()
    assert pd.isna(spots.obs["archetypes"].iloc[3])
    with pytest.raises(ValueError, match="only 60 observations"):
        um.tl.starfysh_archetypes(spots, 61)
    with pytest.raises(ValueError, match="'auto' or an integer"):
        um.tl.starfysh_archetypes(spots, 0)
    with pytest.raises(ValueError, match="leave these types out"):
        um.tl.starfysh_archetypes(spots, 3, signatures={"a": ["nothing"], "b": ["g1"]})
    with pytest.raises(TypeError, match="`signatures` must be a mapping"):
        um.tl.starfysh_archetypes(spots, 3, signatures=["g1"])
    with pytest.raises(KeyError, match="spatial_neighbors"):
        um.tl.starfysh_archetypes(spots, 3, smooth=0.5)
    with pytest.raises(KeyError, match="`smoothing` needs a spatial graph"):
        um.tl.starfysh_archetypes(spots, 3, smoothing="auto")
    with pytest.raises(ValueError, match="number >= 0"):
        um.tl.starfysh_archetypes(spots, 3, smoothing=-1.0)
    with pytest.raises(ValueError, match="`smoothing` needs components"):
        um.tl.starfysh_archetypes(spots, 3, smoothing=1.0, use_rep="X")
    with pytest.raises(ValueError, match="at least two observations"):
        um.tl.starfysh_archetypes(spots[:1].copy(), 1)


def test_smoothed_communities_and_a_given_representation():
    spots, _, _ = tissue(100)
    near = np.abs(spots.obsm["spatial"][:, None] - spots.obsm["spatial"][None]).sum(axis=2) == 1
    spots.obsp["spatial_connectivities"] = sparse.csr_matrix(near.astype(float))
    spots.obsm["X_own"] = np.random.default_rng(0).normal(size=(100, 5))
    um.tl.starfysh_archetypes(spots, 3, use_rep="X_own", n_pcs=4, smooth=0.5)
    assert spots.uns["archetypes"]["archetypes"].shape[1] == 4


def test_a_given_representation_is_read_or_refused_in_words():
    """New observations that it did not know were once given to the first archetype whole."""
    spots, _, _ = tissue(100)
    R = np.random.default_rng(0).normal(size=(100, 4))
    spots.obsm["own"] = sparse.csr_matrix(R)
    um.tl.starfysh_archetypes(spots, 3, use_rep="own")
    for table, message in (
        (np.where(np.arange(100)[:, None] == 7, np.nan, R), r"obsm\['own'\] is not finite in 1 observations \('s7'"),
        (R[:, :3], "fitted to 4 dimensions .* has 3"),
        (R[:, :, None], "table of observations by dimensions"),
    ):
        new = ad.AnnData(spots.X, obs=spots.obs[[]], var=spots.var[[]], obsm={"own": table})
        with pytest.raises(ValueError, match=message):
            um.tl.transform(new, spots, key="archetypes")
    new.obsm["own"] = np.where(np.arange(100)[:, None] == 7, np.inf, R)
    with pytest.raises(ValueError, match="'s7' is one"):
        um.tl.starfysh_archetypes(new, 3, use_rep="own")


def bands(shuffled: bool, seed: int = 0) -> tuple[ad.AnnData, np.ndarray]:
    """Spots of three bands of a 20 x 20 grid, whose few cells blur what a band is made of."""
    spots, _, _ = tissue(400, 3, seed)
    rng, band = np.random.default_rng(seed), np.arange(400) // 20 * 3 // 20
    profile = np.where(np.arange(spots.n_vars)[None] // 20 == np.arange(3)[:, None], 9.0, 1.0)
    cells = np.array([rng.multinomial(3, np.where(np.arange(3) == b, 0.5, 0.25)) / 3 for b in band])
    mean = cells @ (profile / profile.sum(axis=1, keepdims=True)) * 2000
    spots.X = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    at = spots.obsm["spatial"][rng.permutation(400) if shuffled else np.arange(400)]
    near = np.abs(at[:, None] - at[None]).sum(axis=2) == 1
    spots.obsp["spatial_connectivities"] = sparse.csr_matrix(near.astype(float))
    return spots, band


def test_neighbours_are_heard_where_the_tissue_is_smooth():
    spots, band = bands(shuffled=False)
    alone = um.tl.starfysh_archetypes(spots, 3, resolution=None, copy=True)
    um.tl.starfysh_archetypes(spots, 3, resolution=None, smoothing="auto")
    entry = spots.uns["archetypes"]
    assert entry["smoothing"] >= 1
    assert entry["smoothing_curve"]["predicted"].to_numpy().argmax() > 0
    together, apart = (adjusted_rand_score(band, a.obs["archetypes"]) for a in (spots, alone))
    assert together > apart + 0.3
    np.testing.assert_allclose(um.get.archetypes(spots).sum(axis=1), 1, atol=1e-9)


def test_neighbours_are_not_heard_where_they_say_nothing():
    spots, _ = bands(shuffled=True)
    alone = um.tl.starfysh_archetypes(spots, 3, copy=True)
    um.tl.starfysh_archetypes(spots, 3, smoothing="auto")
    assert spots.uns["archetypes"]["smoothing"] == 0
    pd.testing.assert_frame_equal(spots.obsm["archetypes"], alone.obsm["archetypes"])


def test_dense_csc_and_threads_give_the_same_numbers(fitted):
    spots, _, _ = fitted
    reference = um.tl.starfysh_archetypes(spots, 3, copy=True).obsm["archetypes"].to_numpy()
    for X in (spots.X.toarray(), spots.X.tocsc(), spots.X.astype(np.int32)):
        other = ad.AnnData(X, obs=spots.obs[[]], var=spots.var[[]])
        um.tl.starfysh_archetypes(other, 3, n_jobs=2)
        np.testing.assert_allclose(other.obsm["archetypes"].to_numpy(), reference, atol=1e-6)


def test_results_are_stored_in_h5ad(fitted, tmp_path):
    spots, _, _ = fitted
    spots.write_h5ad(tmp_path / "spots.h5ad")
    again = ad.read_h5ad(tmp_path / "spots.h5ad")
    pd.testing.assert_frame_equal(
        um.get.archetypes(again, what="proportions"), um.get.archetypes(spots, what="proportions")
    )
    assert um.get.archetypes(again[:10].copy()).shape == (10, 3)


def test_pictures(fitted):
    spots, _, _ = fitted
    assert len(um.pl.archetypes(spots, show=False)) == 3
    assert [ax.get_title() for ax in um.pl.archetypes(spots, proportions=True, show=False)] == ["T/0", "T/1", "T/2"]
    for draw in (
        um.pl.archetype_simplex,
        um.pl.archetype_tree,
        um.pl.archetype_selection,
        um.pl.archetype_markers,
        um.pl.signature_matching,
    ):
        (axes,) = draw(spots, show=False)
        axes.get_figure().canvas.draw()
    plt.close("all")


def test_scores_of_gene_sets_that_were_changed_are_not_drawn(fitted):
    spots = fitted[0].copy()
    spots.uns["archetypes"]["set_scores"] = 0.5
    with pytest.raises(ValueError, match="changed since, so run the tool again"):
        um.pl.signature_matching(spots, show=False)


@pytest.mark.realdata
def test_pancreatic_regions_match_their_signatures(shared_data):
    import json

    spots = ad.read_h5ad(shared_data / "st_pdac_a" / "spatial.h5ad")
    sets = json.loads((shared_data / "st_pdac_a" / "marker_list.json").read_text())
    um.tl.starfysh_archetypes(spots, signatures=sets)
    partner = um.get.archetypes(spots, what="matching").astype(str).set_index("type")["archetype"]
    W = um.get.archetypes(spots)
    for name, region in (
        ("Cancer_clone_A", "Cancer"),
        ("Ductal_CRISP3_high-centroacinar_like", "Duct Epithelium"),
        ("Acinar_cells", "Pancreatic"),
    ):
        assert roc_auc_score(spots.obs["region"] == region, W[partner[name]]) > 0.8


def test_transform_of_the_fitted_spots_gives_their_weights(fitted):
    spots, _, _ = fitted
    again = ad.AnnData(spots.X, obs=spots.obs[[]], var=spots.var[[]])
    um.tl.transform(again, spots, key="archetypes")
    pd.testing.assert_frame_equal(again.obsm["archetypes"], spots.obsm["archetypes"], rtol=0, atol=1e-6)
    assert "X_archetypes" not in again.obsm
    weights = um.get.as_anndata(again, key="archetypes")
    assert list(weights.var_names) == list(um.get.archetypes(spots).columns)
    np.testing.assert_array_equal(weights.X, again.obsm["archetypes"])


def test_transform_gives_the_same_weights_where_others_are_as_good():
    """Six archetypes in two dimensions: they differed by up to .6."""
    spots, _, _ = tissue(200, 4)
    um.tl.starfysh_archetypes(spots, 6, n_pcs=2, resolution=None)
    mapped = um.tl.transform(spots, spots, key="archetypes", copy=True)
    pd.testing.assert_frame_equal(mapped.obsm["archetypes"], spots.obsm["archetypes"], rtol=0, atol=1e-6)


def test_weights_of_mapped_spots_are_tabulated_and_drawn_like_the_fits(fitted):
    spots, _, _ = fitted
    mapped = ad.AnnData(spots.X, obs=spots.obs[[]], var=spots.var[[]], obsm={"spatial": spots.obsm["spatial"]})
    um.tl.transform(mapped, spots, key="archetypes", key_added="other")
    table = um.get.archetypes(mapped, key="other")
    pd.testing.assert_frame_equal(table, um.get.archetypes(spots), rtol=0, atol=1e-6)
    titles = [ax.get_title() for ax in um.pl.archetypes(mapped, key="other", show=False)]
    assert titles == list(table.columns)
    plt.close("all")
    with pytest.raises(KeyError, match="weights alone"):
        um.get.archetypes(mapped, key="other", what="proportions")


def test_a_fit_is_not_overwritten_by_its_own_transform(fitted):
    spots = fitted[0].copy()
    with pytest.raises(ValueError, match="overwrite the fit 'archetypes'"):
        um.tl.transform(spots, spots, key="archetypes")
    assert spots.uns["archetypes"]["params"]["tool"] == "starfysh_archetypes"
    mapped = um.tl.transform(spots, spots, key="archetypes", copy=True)
    um.tl.transform(spots, spots, key="archetypes", key_added="again")
    pd.testing.assert_frame_equal(spots.obsm["again"], mapped.obsm["archetypes"])
    assert "anchors" in spots.uns["archetypes"]


def test_transform_needs_no_gene_but_some(fitted):
    spots, _, _ = fitted
    fewer = ad.AnnData(spots.X[:, 10:], obs=spots.obs[[]], var=spots.var[[]].iloc[10:])
    um.tl.transform(fewer, spots, key="archetypes")
    W, whole = fewer.obsm["archetypes"].to_numpy(), spots.obsm["archetypes"].to_numpy()
    np.testing.assert_allclose(W.sum(axis=1), 1, atol=1e-6)
    assert min(np.corrcoef(W[:, k], whole[:, k])[0, 1] for k in range(3)) > 0.95
    foreign = ad.AnnData(np.ones((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="share no gene"):
        um.tl.transform(foreign, spots, key="archetypes")
    spoiled = spots.copy()
    spoiled.uns["archetypes"]["names"] = ["archetype_1"]
    with pytest.raises(ValueError, match="3 archetypes and 1 names"):
        um.tl.transform(fewer, spoiled, key="archetypes")


def test_rows_whose_counts_are_mostly_chance_are_projected():
    spots, truth, sets = tissue()
    clean = um.tl.starfysh_archetypes(spots, 3, resolution=None, copy=True)
    rng = np.random.default_rng(0)
    X = spots.X.toarray()
    for i, n in ((7, 2), (91, 3), (200, 5)):
        X[i] = rng.multinomial(n, X[i] / X[i].sum())
    spots.X = sparse.csr_matrix(X)
    um.tl.starfysh_archetypes(spots, signatures=sets, resolution=None)
    shallow = spots.obs["archetypes_status"] == "shallow"
    assert np.flatnonzero(shallow).tolist() == [7, 91, 200]
    assert spots.uns["archetypes"]["n_shallow"] == 3
    W, reference = um.get.archetypes(spots).to_numpy(), um.get.archetypes(clean).to_numpy()
    assert W.shape[1] == 3
    np.testing.assert_allclose(W.sum(axis=1), 1)
    cosine = np.corrcoef(W[~shallow].T, reference[~shallow].T)[:3, 3:]
    assert cosine.max(axis=1).min() > 0.999
    assert set(spots.obs["archetypes_anchor"][shallow]) == {"none"}


def test_genes_themselves_can_be_fitted():
    spots, truth, _ = tissue(150)
    um.tl.starfysh_archetypes(spots, 3, use_rep="X", resolution=None)
    W = um.get.archetypes(spots).to_numpy()
    assert spots.uns["archetypes"]["archetypes"].shape == (3, 200)
    correlation = np.corrcoef(W.T, truth.T)[:3, 3:]
    assert correlation.max(axis=1).min() > 0.75
    again = ad.AnnData(spots.X, obs=spots.obs[[]], var=spots.var[[]])
    um.tl.transform(again, spots, key="archetypes")
    np.testing.assert_allclose(again.obsm["archetypes"], W, atol=1e-6)
    with pytest.raises(ValueError, match="0 with `use_rep='X'`"):
        um.tl.starfysh_archetypes(spots, 3, use_rep="X", delta=0.2)


@pytest.mark.parametrize("use_rep", [None, "X"])
def test_a_file_is_read_block_by_block(tmp_path, monkeypatch, use_rep):
    """With no room to gather anything the numbers stay the same, and what is read at once stays small."""
    from unmix.core import scaled
    from unmix.tl import _archetype_input

    for name in ("PARALLEL_ROWS", "RANK_ROWS"):
        monkeypatch.setattr(_archetype_input, name, 100)
    spots, _, sets = tissue(300)
    spots.write_h5ad(tmp_path / "spots.h5ad")
    options = {"signatures": sets, "resolution": None, "use_rep": use_rep, "coreset": 150}
    um.tl.starfysh_archetypes(spots, 3, **options)
    for module in (scaled, um.core.markers):
        monkeypatch.setattr(module, "GATHER_ENTRIES", 5_000)
    monkeypatch.setattr(um.core.archetypes, "CORESET_BOUNDS", (100, 100))
    monkeypatch.setattr(um.core.blocks, "BLOCK_ENTRIES", 64 * 200)
    sizes, read = [], scaled.ScaledRows.__getitem__

    def watched(self, which):
        block = read(self, which)
        sizes.append(block.nnz)
        return block

    monkeypatch.setattr(scaled.ScaledRows, "__getitem__", watched)
    on_disk = ad.read_h5ad(tmp_path / "spots.h5ad", backed="r")
    again = um.tl.starfysh_archetypes(on_disk, 3, copy=True, **options)
    for what in ("weights", "proportions"):
        np.testing.assert_allclose(um.get.archetypes(again, what=what), um.get.archetypes(spots, what=what), atol=5e-4)
    assert spots.X.nnz > 30_000
    assert max(sizes) < 40_000


def test_genes_of_which_it_is_not_known_whether_they_vary_are_left_out():
    spots, _, _ = tissue(60)
    marked = np.arange(spots.n_vars) < 100
    weights = []
    for flags in (marked, pd.Series(marked, spots.var_names).where(marked)):  # NaN, as after joining two objects
        spots.var["highly_variable"] = flags
        um.tl.starfysh_archetypes(spots, 3, n_restarts=1)
        weights.append(spots.obsm["archetypes"].to_numpy())
        assert set(spots.uns["archetypes"]["reduction"]["genes"]) <= set(spots.var_names[marked])
    np.testing.assert_array_equal(*weights)
