"""`unmix joint-nmf` on modalities and batches gives what the function gives, and says what does not go together."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import unmix as um
from unmix.cli import main

mudata = pytest.importorskip("mudata")
pytestmark = pytest.mark.filterwarnings("ignore:From 0.4:FutureWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, r = tmp_path_factory.mktemp("joint"), np.random.default_rng(0)
    W = r.gamma(0.3, 1, (60, 3))
    for name, m in (("rna", 40), ("adt", 6)):
        part = ad.AnnData(r.poisson(W @ r.gamma(0.5, 20, (3, m))).astype(np.float32))
        part.obs_names, part.var_names = [f"c{i}" for i in range(60)], [f"{name}{j}" for j in range(m)]
        part.obs["batch"] = ["a", "b"] * 30
        part.write_h5ad(folder / f"{name}.h5ad")
    return folder


def run(capsys, *arguments, command="joint-nmf"):
    with pytest.raises(SystemExit) as end:
        main([command, *map(str, arguments)])
    return end.value.code, capsys.readouterr()


def test_modalities(files, tmp_path, capsys):
    inputs, out, table = (files / "rna.h5ad", files / "adt.h5ad"), tmp_path / "y.h5mu", tmp_path / "y.csv"
    more = ("--loss", "kl", "--loss", "frobenius", "--loadings", table, "--out", out)
    code, said = run(capsys, *inputs, "--n-components", 3, *more)
    assert code in (0, None), said.err
    data = {path.stem: ad.read_h5ad(path) for path in inputs}
    um.tl.joint_nmf(data, 3, loss={"rna": "kl", "adt": "frobenius"})
    back = mudata.read_h5mu(out)
    np.testing.assert_array_equal(back["adt"].varm["joint_nmf"], data["adt"].varm["joint_nmf"])
    np.testing.assert_array_equal(back.obsm["X_joint_nmf"], data["rna"].obsm["X_joint_nmf"])
    assert set(pd.read_csv(table)["part"]) == {"rna", "adt"}
    again = tmp_path / "z.h5mu"
    code, said = run(capsys, out, "--n-components", 2, "--key-added", "two", "--out", again)
    assert code in (0, None), said.err
    assert mudata.read_h5mu(again)["rna"].varm["two"].shape == (40, 2)


def test_what_was_written_is_told_reported_and_mapped_onto(files, tmp_path, capsys):
    fit, out, page = tmp_path / "y.h5mu", tmp_path / "mapped.h5ad", tmp_path / "page.html"
    code, said = run(capsys, files / "rna.h5ad", files / "adt.h5ad", "--n-components", 3, "--out", fit)
    assert code in (0, None), said.err
    code, said = run(capsys, fit, command="info")
    assert code in (0, None), said.err
    assert "modality rna: 60 observations x 40 genes" in said.out
    assert "modality adt: 60 observations x 6 genes" in said.out
    assert said.out.count("joint_nmf: tl.joint_nmf") == 2
    code, said = run(capsys, fit, "--as-json", command="info")
    assert json.loads(said.out)["modalities"]["adt"]["genes"] == 6
    onto = (files / "rna.h5ad", "--fitted", fit, "--key", "joint_nmf", "--out", out)
    code, said = run(capsys, *onto, "--modality", "rna", "--predict", "adt", command="transform")
    assert code in (0, None), said.err
    expected = ad.read_h5ad(files / "rna.h5ad")
    um.tl.transform(expected, mudata.read_h5mu(fit)["rna"], key="joint_nmf", predict="adt")
    pd.testing.assert_frame_equal(ad.read_h5ad(out).obsm["joint_nmf_adt"], expected.obsm["joint_nmf_adt"])
    code, said = run(capsys, fit, "--modality", "rna", "--out", page, command="report")
    assert code in (0, None), said.err
    assert "Shared factors" in page.read_text()
    for more, words in (
        ((), "--modality must name one of rna, adt"),
        (("--modality", "x"), "no modality 'x'; it has rna, adt"),
    ):
        code, said = run(capsys, fit, *more, "--out", tmp_path / "other.html", command="report")
        assert code == 1
        assert words in said.err
    code, said = run(capsys, out, "--modality", "rna", "--out", tmp_path / "other.html", command="report")
    assert code == 1
    assert "holds one object" in said.err


def test_batches_with_every_option(files, tmp_path, capsys):
    out, second = tmp_path / "y.h5ad", tmp_path / "z.h5ad"
    more = ("--n-components", 3, "--batch-key", "batch")
    code, said = run(capsys, files / "rna.h5ad", *more, "--align", "--online", 2, "--measured", "nonzero", "--out", out)
    assert code in (0, None), said.err
    assert "X_joint_nmf_aligned" in ad.read_h5ad(out).obsm
    code, said = run(capsys, files / "rna.h5ad", *more, "--start", out, "--freeze", "--out", second)
    assert code in (0, None), said.err
    np.testing.assert_allclose(ad.read_h5ad(second).varm["joint_nmf"], ad.read_h5ad(out).varm["joint_nmf"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rna.h5ad"], "give --batch-key"),
        (["rna.h5ad", "adt.h5ad", "--batch-key", "batch"], "one file with all batches"),
        (["rna.h5ad", "rna.h5ad"], "must differ"),
        (["rna.h5ad", "adt.h5ad", "--align"], "need `batch_key`"),
        (["rna.h5ad", "adt.h5ad", "--no-scale", "--specificity", "2"], "`specificity`, `scale` need `batch_key`"),
        (["rna.h5ad", "adt.h5ad", "--weights", "1"], "once for each of"),
    ],
)
def test_what_does_not_go_together(files, tmp_path, capsys, arguments, words):
    paths = [files / a if a.endswith(".h5ad") else a for a in arguments]
    code, said = run(capsys, *paths, "--n-components", 2, "--out", tmp_path / "y.h5mu")
    assert code == 1
    assert words in said.err
    assert not list(tmp_path.iterdir())


def test_batches_have_one_loss(files, tmp_path, capsys):
    options = ["--batch-key", "batch", "--loss", "kl", "--loss", "frobenius", "--out", tmp_path / "y.h5ad"]
    code, said = run(capsys, files / "rna.h5ad", "--n-components", 2, *options)
    assert code == 1
    assert "batches have one --loss" in said.err
