"""The report, without a browser: its data are those of the AnnData, and nothing in it can be run or fetched."""

import html.parser
import json
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import unmix as um
from unmix._report.deconvolve import read_deconvolve, specific_genes
from unmix._report.packing import unpack_array, unpack_texts
from unmix.cli import main

EVIL = "<script>alert(1)</script>"

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


class Page(html.parser.HTMLParser):
    """What a browser makes of the page: elements with their attributes, scripts, embedded data."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.scripts, self.data = [], [], None
        self.inside = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = (tag, dict(attrs))

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside and self.inside[0] == "script":
            if self.inside[1].get("type") == "application/json":
                self.data = json.loads(data)
            else:
                self.scripts.append(data)


def written(adata, folder, **options):
    um.report(adata, folder / "report.html", **options)
    return Page(folder / "report.html")


def table_of(page, result, name=None):
    """A quantity of a result as a table."""
    quantities = {q["name"]: q["values"] for q in result["quantities"]}
    values = quantities[name] if name else result["quantities"][0]["values"]
    return pd.DataFrame(unpack_array(values), index=unpack_texts(page.data["names"]), columns=result["parts"])


@pytest.fixture(scope="module")
def spots():
    """Twenty spots with proportions, their errors, a spot without counts, and archetypes with gene sets."""
    spots, reference = um.datasets.pbmc_spots(shape=(4, 5))
    spots.X = sparse.csr_matrix(sparse.diags_array((np.arange(20) != 3).astype(np.float32)) @ spots.X)
    um.tl.deconvolve(spots, reference, groupby="cell_type", n_perms=9)
    sets = {"B": ["MS4A1", "CD79A", "CD79B"], EVIL: ["LYZ", "S100A8", "S100A9"]}
    um.tl.starfysh_archetypes(spots, 3, resolution=None, signatures=sets)
    return spots


def test_the_embedded_table_is_that_of_the_anndata(spots, tmp_path):
    page = written(spots, tmp_path)
    assert [r["key"] for r in page.data["results"]] == ["deconvolve", "archetypes", "archetypes"]
    first, weights, shares = page.data["results"]
    pd.testing.assert_frame_equal(table_of(page, first), um.get.proportions(spots), check_names=False)
    errors = um.get.proportions(spots, tidy=True)["se"].to_numpy().reshape(20, -1)
    np.testing.assert_array_equal(table_of(page, first, "standard error"), errors)
    pd.testing.assert_frame_equal(table_of(page, weights), um.get.archetypes(spots), check_names=False)
    expected = um.get.archetypes(spots, what="proportions")
    pd.testing.assert_frame_equal(table_of(page, shares), expected, check_names=False)
    np.testing.assert_array_equal(unpack_array(page.data["place"]["xy"]), spots.obsm["spatial"])


def test_diagnostics_and_evidence_are_those_stored(spots, tmp_path):
    first, weights, _ = written(spots, tmp_path).data["results"]
    columns = {c["name"]: c for c in first["columns"]}
    np.testing.assert_array_equal(
        unpack_array(columns["p-value of misfit"]["values"]), spots.obs["deconvolve_misfit"].to_numpy()
    )
    status = np.array(columns["status"]["names"])[unpack_array(columns["status"]["values"])]
    assert list(status) == list(spots.obs["deconvolve_status"])
    tables = {t["title"]: {c["name"]: c for c in t["columns"]} for t in weights["tables"]}
    matched = tables["Matching of gene sets and archetypes"]["type"]
    assert set(matched["names"]) == {"B", EVIL}
    numbers = tables["Marker genes: numbers"]
    genes = np.array(numbers["gene"]["names"])[unpack_array(numbers["gene"]["values"])]
    assert list(genes) == list(um.get.markers(spots, n_genes=20)["gene"].astype(str))
    assert ["method", "auto"] in first["parameters"]
    assert ["unmix_version", um.__version__] in first["parameters"]


def test_warnings_say_what_is_wrong(spots, tmp_path):
    first, _, shares = written(spots, tmp_path).data["results"]
    assert first["findings"][0]["level"] == "warning"
    told = " ".join(f["text"] for f in first["findings"])
    assert "1 of 20 observations could not be fitted" in told
    assert "no counts: 1" in told
    assert "1 of 20 observations have no counts" in " ".join(f["text"] for f in shares["findings"])
    levels = [f["level"] for f in first["findings"]]
    assert levels == sorted(levels, reverse=True)


def test_an_unknown_type_and_poor_fits_are_warned_of(spots, tmp_path):
    worse = spots.copy()
    table = worse.obsm["deconvolve"]
    worse.obsm["deconvolve"] = table.set_axis([*table.columns[:-1], "unknown"], axis=1)
    worse.uns["deconvolve"]["names"] = [*map(str, table.columns[:-1]), "unknown"]
    del worse.uns["deconvolve"]["slots"]  # a result says what is its own
    worse.obs["deconvolve_unknown"] = 0.3
    worse.obs["deconvolve_misfit"] = 1e-5
    told = [f["text"] for f in written(worse, tmp_path).data["results"][0]["findings"] if f["level"] == "warning"]
    assert any("on average 30 % of an observation is unknown" in text for text in told)
    assert any(text.startswith("100 % of the observations lie further") for text in told)


def test_names_cannot_become_markup(spots, tmp_path):
    evil = spots.copy()
    evil.obs_names = [f"{EVIL} {i}" for i in range(20)]
    evil.var_names = [EVIL, *evil.var_names[1:]]
    names = [EVIL, *evil.uns["deconvolve"]["names"][1:]]
    evil.uns["deconvolve"]["names"] = names
    evil.obs["note"] = pd.Categorical([EVIL] * 20)
    page = written(evil, tmp_path, title=EVIL, obs=["note"])
    assert page.data["results"][0]["parts"] == names
    assert unpack_texts(page.data["names"])[0] == f"{EVIL} 0"
    text = (tmp_path / "report.html").read_text()
    assert "alert(1)</script>" not in text
    assert "<script>alert" not in text
    assert sum(tag == "script" for tag, _ in page.elements) == 1 + len(page.scripts)


def test_the_page_asks_nothing_of_a_network(spots, tmp_path):
    page = written(spots, tmp_path)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert re.match("#|data:,$", attributes.get(name) or "#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    own = page.scripts[-1]
    style = re.search("<style>(.*?)</style>", (tmp_path / "report.html").read_text(), re.S)[1]
    for part in (own, style):
        assert not re.search(r"https?://|@import|url\(|\beval\(|innerHTML|import\(|XMLHttpRequest|fetch\(", part)


def test_an_image_lies_where_scanpy_puts_it(spots, tmp_path):
    with_image = spots.copy()
    factors = {"tissue_hires_scalef": 2.0}
    image = np.zeros((30, 50, 3), dtype=np.float32)
    with_image.uns["spatial"] = {"lib": {"images": {"hires": image}, "scalefactors": factors}}
    place = written(with_image, tmp_path).data["place"]
    assert (place["images"][0]["width"], place["images"][0]["height"]) == (25, 15)
    assert place["images"][0]["uri"].startswith("data:image/jpeg;base64,")
    assert place["down"]


def test_without_a_tissue_an_embedding_or_bars(spots, tmp_path):
    bulk = spots.copy()
    bulk.obsm["X_umap"] = bulk.obsm.pop("spatial")
    place = written(bulk, tmp_path).data["place"]
    assert (place["basis"], place["down"]) == ("X_umap", False)
    del bulk.obsm["X_umap"]
    assert written(bulk, tmp_path).data["place"] is None
    with pytest.raises(KeyError, match="X_umap"):
        um.report(bulk, tmp_path / "report.html", basis="X_umap")
    bulk.obsm["here"] = np.full((20, 2), np.nan)
    with pytest.raises(ValueError, match="finite"):
        um.report(bulk, tmp_path / "report.html", basis="here")


def test_every_factorisation_and_autoencoder_has_its_page(tmp_path):
    spots, _ = um.datasets.pbmc_spots(shape=(6, 8))
    spots.obs["half"] = pd.Categorical(["a", "b"] * 24)
    um.tl.factorize(spots, "auto", ranks=[2, 3])
    um.tl.factorize(spots, 3, method="svd", center=True)
    um.tl.metagenes(spots, [2, 3], n_runs=4, max_distance=2.0, net={"B": list(spots.var_names[:9])})
    um.tl.joint_nmf(spots, 3, batch_key="half", tol=1e-3, align=True)
    um.tl.autoencoder(spots, 3, likelihood="nb", max_epochs=2)
    um.tl.transform(spots, spots, key="nmf", key_added="again")
    path = tmp_path / "all.h5ad"
    spots.write_h5ad(path)
    page = written(ad.read_h5ad(path), tmp_path)
    results = {r["key"]: r for r in page.data["results"]}
    assert list(results) == ["nmf", "svd", "metagenes", "joint_nmf", "ae", "again"]
    for key, result in results.items():
        np.testing.assert_array_equal(table_of(page, result), spots.obsm[f"X_{key}"])
        assert result["signed"] == bool((spots.obsm[f"X_{key}"] < 0).any())
    titles = {key: [c["title"] for c in r["curves"]] for key, r in results.items()}
    assert titles == {
        "nmf": ["Convergence", "Number of components"],
        "svd": ["Variance by component"],
        "metagenes": ["Stability"],
        "joint_nmf": ["Convergence"],
        "ae": ["Training"],
        "again": [],
    }
    lines = results["metagenes"]["tables"][0]["columns"]
    assert [lines[1]["names"][c].split(", ")[:3] for c in unpack_array(lines[1]["values"])] == [
        list(spots.uns["metagenes"]["top_genes"][name][:3]) for name in spots.uns["metagenes"]["top_genes"]
    ]
    np.testing.assert_array_equal(
        table_of(page, results["joint_nmf"], "aligned usage"), spots.obsm["X_joint_nmf_aligned"]
    )
    assert [c["name"] for c in results["joint_nmf"]["columns"]] == ["half"]


def test_the_number_of_components_that_was_chosen_is_marked(tmp_path):
    """It need not be the one of the smallest loss: the tool takes the first within one standard error."""
    spots, _ = um.datasets.pbmc_spots(shape=(5, 6))
    um.tl.factorize(spots, "auto", ranks=[2, 3])
    chosen = spots.varm["nmf"].shape[1]
    spots.uns["nmf"]["held_out"] = np.where(np.array([[2], [3]]) == chosen, 2.0, 1.0)
    curves = written(spots, tmp_path).data["results"][0]["curves"]
    figure = next(curve["figure"] for curve in curves if curve["title"] == "Number of components")
    assert f'"location": {float(chosen)}' in json.dumps(figure)


def test_spots_mapped_onto_archetypes_show_their_weights(tmp_path):
    spots, _ = um.datasets.pbmc_spots(shape=(6, 8))
    um.tl.starfysh_archetypes(spots, 3, resolution=None, n_restarts=1)
    new = ad.AnnData(spots.X, obs=spots.obs[[]], var=spots.var[[]])
    um.tl.transform(new, spots, key="archetypes", key_added="mapped")
    page = written(new, tmp_path)
    (result,) = page.data["results"]
    assert (result["part"], result["unit"], result["composition"]) == ("archetype", "weight", True)
    np.testing.assert_allclose(table_of(page, result), new.obsm["mapped"], atol=1e-6)


def test_levels_of_markers_are_the_same_where_other_genes_were_taken_out(spots):
    def levels(adata):
        (table,) = (t for t in read_deconvolve(adata, "deconvolve")[0].tables if t.title == "Marker genes: numbers")
        return table.frame.set_index(["cell type", "gene"])

    whole = levels(spots)
    kept = whole.index.get_level_values("gene").unique()
    assert len(kept) < spots.n_vars
    pd.testing.assert_frame_equal(levels(spots[:, spots.var_names.isin(kept)].copy()), whole)


def test_an_archetype_has_one_colour_on_the_page_of_a_subset_too(spots, tmp_path):
    some = spots[spots.obs["archetypes"] != "archetype_1"].copy()
    result = written(some, tmp_path, keys="archetypes").data["results"][0]
    known = dict(zip(result["parts"], result["colours"], strict=True))
    columns = {c["name"]: dict(zip(c["names"], c["colours"], strict=True)) for c in result["columns"]}
    assert "archetype_1" not in columns["archetype"]
    assert columns["archetype"] == {name: known[name] for name in columns["archetype"]}
    anchors = columns["anchor of"]
    assert {name: colour for name, colour in anchors.items() if name != "none"}.items() <= known.items()
    assert anchors["none"] not in known.values()


def test_specific_genes_are_those_furthest_above_the_next_type():
    levels = pd.DataFrame(
        [[8e-3, 1e-3, 1e-3], [1e-3, 4e-3, 2e-3], [0, 0, 1e-4]], index=list("xyz"), columns=list("abc")
    )
    table = specific_genes(levels)
    first = table.groupby("cell type").first()
    assert first["gene"].to_dict() == {"a": "x", "b": "y", "c": "z"}
    assert first.loc["b", "next type"] == "c"
    assert first.loc["a", "log2 ratio to the next type"] == pytest.approx(np.log2(8.01 / 1.01))
    assert len(specific_genes(levels[["a"]])) == 0


def test_a_page_is_replaced_only_when_complete(spots, tmp_path, monkeypatch):
    from pathlib import Path

    target = tmp_path / "report.html"
    target.write_text("old")

    def half(self, *args, **kwargs):
        self.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(KeyboardInterrupt):
            um.report(spots, target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    before = spots.copy()
    um.report(spots, target)
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert set(spots.uns) == set(before.uns)
    pd.testing.assert_frame_equal(spots.obs, before.obs)


def test_problems_are_told(spots, tmp_path):
    out = tmp_path / "report.html"
    with pytest.raises(TypeError, match="AnnData"):
        um.report(np.ones((2, 2)), out)
    with pytest.raises(KeyError, match="no result of unmix"):
        um.report(um.datasets.pbmc_spots(shape=(2, 2))[0], out)
    with pytest.raises(KeyError, match="nothing"):
        um.report(spots, out, keys="nothing")
    with pytest.raises(KeyError, match="layer"):
        um.report(spots, out, obs="layer")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        um.report(spots, tmp_path / "nowhere" / "report.html")
    with pytest.raises(ValueError, match="no observations"):
        um.report(spots[:0].copy(), out)
    assert not list(tmp_path.iterdir())


def test_the_shell_writes_the_same_page(spots, tmp_path, capsys):
    spots.obs["row"] = pd.Categorical(np.arange(20) // 5)
    spots.write_h5ad(tmp_path / "spots.h5ad")
    out = tmp_path / "out.html"
    arguments = ["report", str(tmp_path / "spots.h5ad"), "--out", str(out), "--key", "deconvolve", "--obs", "row"]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code
    page = Page(out)
    assert page.data["title"] == "spots"
    assert [r["key"] for r in page.data["results"]] == ["deconvolve"]
    assert [c["name"] for c in page.data["extra"]] == ["row"]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1
    assert "--force" in capsys.readouterr().err


def test_a_result_that_was_spoiled_since_is_named(tmp_path):
    _, cells = um.datasets.pbmc_spots()
    um.tl.factorize(cells, 3)
    cells.obsm["spatial"] = np.full((cells.n_obs, 2), "here")
    with pytest.raises(ValueError, match=r"obsm\['spatial'\] must be numbers"):
        um.report(cells, tmp_path / "x.html")
    del cells.obsm["spatial"]
    cells.uns["nmf"]["loss"] = "none"
    with pytest.raises(ValueError, match="'nmf' is not as `tl.factorize` has left it"):
        um.report(cells, tmp_path / "x.html")
    del cells.uns["nmf"]
    um.tl.factorize(cells, 3)
    cells.uns["nmf"] |= {"ranks": np.arange(3), "held_out": np.ones((2, 3)).T}
    um.report(cells, tmp_path / "y.html")
    (tmp_path / "y.html").unlink()
    cells.uns["nmf"]["ranks"] = np.array(["a", "b", "c"])
    with pytest.raises(ValueError, match="'nmf' is not as `tl.factorize` has left it"):
        um.report(cells, tmp_path / "x.html")
    assert not list(tmp_path.iterdir())
