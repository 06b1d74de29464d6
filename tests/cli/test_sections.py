"""Pictures of several sections from the shell: those of the functions, and refused before any work starts."""

import pytest

import unmix as um
from unmix.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


@pytest.fixture(scope="module")
def folder(sections, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sections")
    sections.write_h5ad(folder / "spots.h5ad")
    um.datasets.pbmc_spots()[1].write_h5ad(folder / "cells.h5ad")
    return folder


def commands(folder):
    spots = str(folder / "spots.h5ad")
    reference = ["--reference", str(folder / "cells.h5ad"), "--groupby", "cell_type", "--method", "nnls"]
    return {
        "deconvolve": (["deconvolve", spots, *reference], um.pl.proportions),
        "archetypes": (["archetypes", spots, "--n-archetypes", "3"], um.pl.archetypes),
    }


@pytest.mark.parametrize("name", ["deconvolve", "archetypes"])
def test_the_picture_is_that_of_the_function(folder, tmp_path, name, capsys):
    command, draw = commands(folder)[name]
    outputs = {"--out": "out.csv", "--out-h5ad": "out.h5ad", "--plot": "out.png"}
    command += [part for option, file in outputs.items() for part in (option, str(tmp_path / file))]
    with pytest.raises(SystemExit) as done:
        main([*command, "--library-key", "section"])
    assert done.value.code in (0, None)
    assert "lie on top of each other" not in capsys.readouterr().err
    fitted = um.datasets.read(tmp_path / "out.h5ad")
    draw(fitted, library_key="section", show=False, save=tmp_path / "same.png")
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "same.png").read_bytes()


@pytest.mark.parametrize("name", ["deconvolve", "archetypes"])
def test_a_column_that_does_not_exist_is_refused_before_any_work(folder, tmp_path, name, capsys, monkeypatch):
    monkeypatch.setattr(um.tl, "deconvolve", None)
    monkeypatch.setattr(um.tl, "starfysh_archetypes", None)
    command, _ = commands(folder)[name]
    with pytest.raises(SystemExit) as done:
        main([*command, "--out", str(tmp_path / "out.csv"), "--library-key", "slide"])
    assert done.value.code == 1
    assert "`library_key` 'slide'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_maps_that_lie_on_top_of_each_other_are_warned_of(folder, tmp_path, capsys):
    command, _ = commands(folder)["deconvolve"]
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "out.csv"), "--plot", str(tmp_path / "out.png")])
    assert "3 sections" in capsys.readouterr().err
