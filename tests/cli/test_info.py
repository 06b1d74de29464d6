import json

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um
from unmix.cli import main


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    spots, reference = um.datasets.pbmc_spots()
    um.tl.deconvolve(spots, reference, groupby="cell_type")
    um.tl.deconvolve(spots, reference, groupby="cell_type", key_added="deconvolve_b")
    spots.layers["logged"] = np.log1p(spots.X)
    spots.layers["rooted"] = np.sqrt(spots.X)
    path = tmp_path_factory.mktemp("info") / "spots.h5ad"
    spots.write_h5ad(path)
    return path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["info", *map(str, arguments)])
    assert not end.value.code
    return capsys.readouterr().out


def test_every_result_is_listed_with_its_own_slots(file, capsys):
    told = json.loads(run(capsys, file, "--as-json"))
    assert (told["observations"], told["genes"]) == (300, 765)
    first, second = told["results"]
    assert (first["key"], second["key"]) == ("deconvolve", "deconvolve_b")
    assert "obsm['deconvolve']" in first["slots"]
    assert not any("deconvolve_b" in slot for slot in first["slots"])
    assert "obs['deconvolve_b_rmse']" in second["slots"]
    assert len(first["slots"]) == len(second["slots"])


def test_slots_are_those_noted_whatever_other_keys_are_called():
    spots, _ = um.datasets.pbmc_spots()
    um.tl.factorize(spots, 3, key_added="b_2")
    um.tl.factorize(spots, 2, key_added="b", complete=["CD3D"])
    um.tl.factorize(spots, 2, key_added="b_completed")
    spots.obs["b_of_mine"] = 1.0
    found = um.get.results(spots)["slots"]
    assert sorted(found["b"]) == ["layers['b_completed']", "obsm['X_b']", "varm['b']"]
    assert sorted(found["b_2"]) == ["obsm['X_b_2']", "varm['b_2']"]
    assert sorted(found["b_completed"]) == ["obsm['X_b_completed']", "varm['b_completed']"]
    del spots.varm["b"], spots.uns["b_2"]["slots"]
    found = um.get.results(spots)["slots"]
    assert sorted(found["b"]) == ["layers['b_completed']", "obsm['X_b']"]
    assert sorted(found["b_2"]) == ["obsm['X_b_2']", "varm['b_2']"]


def test_zeros_that_are_stored_are_zeros(tmp_path, capsys):
    stored = sparse.csr_matrix((np.array([0.0, 2.0], np.float32), ([0, 1], [1, 0])), (2, 2))
    AnnData(stored).write_h5ad(tmp_path / "x.h5ad")
    assert "X: 25.0% non-zero, float32, counts" in run(capsys, tmp_path / "x.h5ad")


def test_counts_are_told_from_other_numbers(file, capsys):
    text = run(capsys, file)
    lines = dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
    assert lines["X"].endswith(", counts")
    assert lines["logged"].endswith("log-normalised counts (unmix recover-counts gets them back)")
    assert lines["rooted"].endswith(", not counts")
    assert text.startswith("300 observations x 765 genes")


def test_a_file_without_results_says_so(tmp_path, capsys):
    spots, _ = um.datasets.pbmc_spots()
    spots.write_h5ad(tmp_path / "bare.h5ad")
    assert "no result of unmix" in run(capsys, tmp_path / "bare.h5ad")
