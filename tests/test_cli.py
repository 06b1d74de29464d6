"""The shell command: right tables, whole files or none, problems in one line."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import unmix as um
from unmix.cli import main
from unmix.cli._files import replacing


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    spots, cells = um.datasets.pbmc_spots(shape=(4, 5))
    spots.write_h5ad(folder / "spots.h5ad")
    cells.write_h5ad(folder / "cells.h5ad")
    return folder


def run(files, capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["deconvolve", str(files / "spots.h5ad"), "--reference", str(files / "cells.h5ad"), *map(str, arguments)])
    return end.value.code, capsys.readouterr()


def test_table_object_and_picture(files, tmp_path, capsys):
    out, h5ad, png = tmp_path / "p.csv", tmp_path / "p.h5ad", tmp_path / "p.png"
    code, said = run(
        files, capsys, "--groupby", "cell_type", "--method", "nnls", "--out", out, "--out-h5ad", h5ad, "--plot", png
    )
    assert code in (0, None)
    assert "wrote" in said.out
    table = pd.read_csv(out, index_col=0)
    np.testing.assert_allclose(table, um.get.proportions(ad.read_h5ad(h5ad)), atol=1e-12)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "p.h5ad", "p.png"]


def test_nothing_is_overwritten_unasked(files, tmp_path, capsys):
    out = tmp_path / "p.csv"
    out.write_text("mine")
    code, said = run(files, capsys, "--groupby", "cell_type", "--method", "nnls", "--out", out)
    assert code == 1
    assert "--force" in said.err
    assert out.read_text() == "mine"
    code, _ = run(files, capsys, "--groupby", "cell_type", "--method", "nnls", "--out", out, "--force")
    assert code in (0, None)
    assert len(pd.read_csv(out)) == 20


def test_problems_take_one_line(files, tmp_path, capsys):
    code, said = run(files, capsys, "--groupby", "nothing", "--out", tmp_path / "p.csv")
    assert code == 1
    assert said.err.count("\n") == 1
    assert "'nothing'" in said.err
    assert not list(tmp_path.iterdir())
    (tmp_path / "broken.h5ad").write_bytes(b"not a file of this kind")
    with pytest.raises(SystemExit) as end:
        main(["deconvolve", str(tmp_path / "broken.h5ad"), "--reference", "x.csv", "--out", str(tmp_path / "o.csv")])
    assert end.value.code == 1
    assert "broken.h5ad could not be read" in capsys.readouterr().err


def test_wrong_usage_is_told_as_such(files, capsys):
    code, _ = run(files, capsys, "--out", "x.csv", "--method", "magic")
    assert code not in (0, None)


def test_a_file_is_replaced_only_when_complete(tmp_path):
    target = tmp_path / "t.csv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
