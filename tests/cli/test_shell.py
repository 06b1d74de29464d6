"""How the shell speaks, and how it ends; commands that apply what was fitted."""

import io
import os
import subprocess
import sys
from dataclasses import fields

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import unmix as um
from unmix._settings import progress
from unmix.cli import app, main

TOOLS = {
    "archetypes": "starfysh_archetypes",
    "signatures": None,
    "recover-counts": "recover_counts",
    "zinb-ae": "zinb_ae",
    "joint-nmf": "joint_nmf",
}
COMMANDS = [
    "archetypes", "autoencoder", "deconvolve", "demo", "denoise", "factorize", "info", "joint-nmf", "metagenes",
    "recover-counts", "report", "signatures", "transform", "zinb-ae",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    spots, cells = um.datasets.pbmc_spots(shape=(4, 5))
    spots.write_h5ad(folder / "spots.h5ad")
    cells.write_h5ad(folder / "cells.h5ad")
    return folder


def run(*arguments):
    """Return the exit code of the command in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code or 0


def test_every_tool_has_a_command():
    commands = {name for name in app if not name.startswith("-")}
    assert set(COMMANDS) <= commands
    names = {TOOLS.get(command, command) or command for command in commands}
    assert set(um.tl.__all__) <= names
    assert "signatures" in names


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_option(command, capsys):
    assert run(command, "--help") == 0
    said = capsys.readouterr().out
    function = app[command].default_command
    text, names = function.__doc__, function.__annotations__.keys() - {"return", "options"}
    shared = function.__annotations__.get("options", object)  # of both autoencoders
    for name in names | {field.name for field in fields(shared)} if shared is not object else names:
        assert f"\n    {name}\n" in text + shared.__doc__
        assert f"--{name.replace('_', '-')}" in said
    assert "--empty" not in said
    assert text.splitlines()[0].split(":")[0][:40].rstrip(".") in " ".join(said.replace("│", " ").split())


def test_exit_codes(folder, tmp_path, monkeypatch, capsys):
    fine = ["deconvolve", folder / "spots.h5ad", "--reference", folder / "cells.h5ad", "--groupby", "cell_type"]
    fine += ["--method", "nnls", "--out", tmp_path / "p.csv"]
    assert run(*fine) == 0
    assert run("--version") == 0
    assert run(*fine) == 1
    assert run("deconvolve", folder / "spots.h5ad", "--nothing") == 2
    assert run("nothing") == 2
    capsys.readouterr()
    assert run("metagenes", folder / "cells.h5ad", "--n-components", 4, 5, "--out", tmp_path / "m.h5ad") == 2
    assert "name it before each" in capsys.readouterr().err
    assert run("deconvolve") == 2

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(um.tl, "deconvolve", interrupted)
    before = (tmp_path / "p.csv").read_text()
    capsys.readouterr()
    assert run(*fine, "--force") == 130
    assert capsys.readouterr().err == "unmix: interrupted; no file was changed.\n"
    assert (tmp_path / "p.csv").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    ("option", "name"), [("--out", "p.xlsx"), ("--out-h5ad", "q.csv"), ("--plot", "p.docx"), ("--plot", "picture")]
)
def test_endings_are_checked_before_any_work(folder, tmp_path, option, name, capsys, monkeypatch):
    monkeypatch.setattr(um.tl, "deconvolve", None)
    options = {"--out": tmp_path / "p.csv", option: tmp_path / name}
    command = ["deconvolve", folder / "spots.h5ad", "--reference", folder / "cells.h5ad", "--groupby", "cell_type"]
    assert run(*command, *(word for pair in options.items() for word in pair)) == 1
    assert f"{name}: the name must end in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")
def test_a_terminal_is_told_what_goes_on_and_a_pipe_is_not(folder, tmp_path):
    command = [sys.executable, "-m", "unmix", "factorize", str(folder / "spots.h5ad"), "--n-components", "2"]
    terminal, end = os.openpty()
    done = subprocess.run([*command, "--out", str(tmp_path / "a.h5ad")], stdout=subprocess.PIPE, stderr=end, check=True)
    os.close(end)
    assert b"factorize" in os.read(terminal, 65536)
    os.close(terminal)
    assert done.stdout.startswith(b"wrote")
    piped = subprocess.run([*command, "--out", str(tmp_path / "b.h5ad")], capture_output=True, check=True)
    assert piped.stderr == b""
    assert piped.stdout.startswith(b"wrote")


def test_the_progress_bar_is_for_terminals_and_notebooks(monkeypatch):
    monkeypatch.setattr(um.settings, "progress_delay", 0.0)
    assert said_by_progress(monkeypatch, terminal=True).count("%") > 0
    assert said_by_progress(monkeypatch, terminal=False) == ""
    assert said_by_progress(monkeypatch, terminal=False, module="ipykernel.iostream").count("%") > 0


def said_by_progress(monkeypatch, *, terminal, module="io"):
    stream = type("Stream", (io.StringIO,), {"__module__": module})()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(3), total=3, desc="x")) == [0, 1, 2]
    return stream.getvalue()


def test_recovered_counts_deconvolve_as_the_counts(folder, tmp_path):
    spots = ad.read_h5ad(folder / "spots.h5ad")
    spots.X = sparse.csr_matrix(spots.X.multiply(1e4 / spots.X.sum(axis=1))).log1p()
    spots.write_h5ad(tmp_path / "logs.h5ad")
    assert run("recover-counts", tmp_path / "logs.h5ad", "--out", tmp_path / "both.h5ad") == 0
    shares = []
    for name, more in ((folder / "spots.h5ad", []), (tmp_path / "both.h5ad", ["--layer", "counts"])):
        out = tmp_path / f"{name.stem}.csv"
        command = ["deconvolve", name, "--reference", folder / "cells.h5ad", "--groupby", "cell_type", "--out", out]
        assert run(*command, "--method", "poisson", *more) == 0
        shares.append(pd.read_csv(out, index_col=0))
    pd.testing.assert_frame_equal(*shares)


def test_signatures(folder, tmp_path):
    out, markers, obj = tmp_path / "s.csv", tmp_path / "m.csv", tmp_path / "s.h5ad"
    command = ["signatures", folder / "cells.h5ad", "--groupby", "cell_type", "--out", out, "--markers", markers]
    assert run(*command, "--out-h5ad", obj) == 0
    cells = ad.read_h5ad(folder / "cells.h5ad")
    with pytest.warns(UserWarning, match="few cells"):
        um.pp.signatures(cells, "cell_type")
    table = pd.read_csv(out, index_col=0)
    np.testing.assert_allclose(table, cells.varm["signatures"], rtol=1e-6)
    assert set(table.columns) == set(cells.obs["cell_type"])
    found = pd.read_csv(markers, index_col=0)
    assert set(found.index) == set(cells.var_names[cells.var["signatures_marker"].notna()])
    assert set(found["cell_type"]) <= set(table.columns)
    stored = dict(zip(cells.uns["signatures"]["names"], cells.varm["signatures_qvals"].columns, strict=True))
    expected = [cells.varm["signatures_qvals"].at[gene, stored[kind]] for gene, kind in found["cell_type"].items()]
    np.testing.assert_allclose(found["qval"], expected, rtol=1e-6)
    assert "signatures" in ad.read_h5ad(obj).varm
    out = tmp_path / "p.csv"
    assert (
        run("deconvolve", folder / "spots.h5ad", "--reference", tmp_path / "s.csv", "--method", "nnls", "--out", out)
        == 0
    )
    assert list(pd.read_csv(out, index_col=0).columns) == list(table.columns)


def test_transform(folder, tmp_path):
    fitted, out, table = tmp_path / "f.h5ad", tmp_path / "t.h5ad", tmp_path / "t.tsv"
    assert run("factorize", folder / "cells.h5ad", "--n-components", 3, "--out", fitted) == 0
    command = ["transform", folder / "spots.h5ad", "--fitted", fitted, "--key", "nmf", "--out", out]
    assert run(*command, "--coordinates", table) == 0
    spots = ad.read_h5ad(folder / "spots.h5ad")
    um.tl.transform(spots, ad.read_h5ad(fitted), key="nmf")
    np.testing.assert_array_equal(ad.read_h5ad(out).obsm["X_nmf"], spots.obsm["X_nmf"])
    coordinates = pd.read_csv(table, sep="\t", index_col=0)
    assert list(coordinates.columns) == ["nmf_1", "nmf_2", "nmf_3"]
    assert run("transform", folder / "spots.h5ad", "--fitted", fitted, "--key", "x", "--out", tmp_path / "n.h5ad") == 1
    own = ["--fitted", fitted, "--key", "nmf", "--out", fitted, "--force"]
    assert run("transform", fitted, *own) == run("transform", folder / "spots.h5ad", *own, "--key-added", "new") == 1
    assert run("transform", fitted, *own, "--key-added", "new") == 0
    assert sorted(um.get.results(ad.read_h5ad(fitted))["tool"]) == ["factorize", "transform"]  # the fit is still there


def test_transform_onto_archetypes(folder, tmp_path):
    fitted, out, table = tmp_path / "f.h5ad", tmp_path / "t.h5ad", tmp_path / "t.csv"
    spots = ad.read_h5ad(folder / "spots.h5ad")
    um.tl.starfysh_archetypes(spots, 3, resolution=None, n_restarts=1)
    spots.write_h5ad(fitted)
    command = ["transform", folder / "spots.h5ad", "--fitted", fitted, "--key", "archetypes", "--out", out]
    assert run(*command, "--coordinates", table) == 0
    weights = ad.read_h5ad(out).obsm["archetypes"]
    pd.testing.assert_frame_equal(weights, spots.obsm["archetypes"], rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(pd.read_csv(table, index_col=0), weights, check_names=False)


def test_denoise_from_the_object_and_from_the_model(folder, tmp_path):
    fitted, model = tmp_path / "f.h5ad", tmp_path / "f.safetensors"
    command = ["autoencoder", folder / "cells.h5ad", "--n-latent", 3, "--max-epochs", 2, "--likelihood", "nb"]
    assert run(*command, "--out", fitted, "--model", model) == 0
    first, second = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    assert run("denoise", fitted, "--out", first) == 0
    assert run("denoise", folder / "cells.h5ad", "--fitted", model, "--out", second) == 0
    cells = ad.read_h5ad(fitted)
    um.tl.denoise(cells, key="ae")
    means = ad.read_h5ad(first)
    np.testing.assert_allclose(means.X, cells.layers["ae_denoised"], rtol=1e-5)
    np.testing.assert_allclose(ad.read_h5ad(second).X, means.X, rtol=1e-5)
    assert list(means.var_names) == list(cells.var_names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5ad", "b.h5ad", "f.h5ad", "f.safetensors"]


def test_exponents_of_many_digits_are_refused(folder, tmp_path, capsys):
    table = tmp_path / "signature.csv"
    numbers = "1e4005242134925172599,1e4003584105647994614"  # pandas' own parser ends the process
    table.write_text(",A,B\n" + "".join(f"gene {i},{numbers}\n" for i in range(20)))
    arguments = ["deconvolve", folder / "spots.h5ad", "--reference", table, "--out", tmp_path / "out.csv"]
    assert run(*arguments) == 1
    assert "numeric" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_links_that_lead_back_to_themselves_are_refused(folder, tmp_path, capsys):
    loop, back = tmp_path / "loop.h5ad", tmp_path / "back.h5ad"
    loop.symlink_to(back)
    back.symlink_to(loop)
    good = folder / "spots.h5ad"
    for command in (
        ["factorize", good, "--n-components", "2", "--out", loop],
        ["factorize", loop, "--n-components", "2", "--out", tmp_path / "out.h5ad"],
        ["transform", good, "--fitted", loop, "--key", "nmf", "--out", tmp_path / "out.h5ad"],
        ["transform", loop, "--fitted", good, "--key", "nmf", "--out", tmp_path / "out.h5ad"],
    ):
        assert run(*command) == 1
        assert "loop.h5ad" in capsys.readouterr().err
    assert not (tmp_path / "out.h5ad").exists()
