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


def test_every_kind_of_file_is_read(files, tmp_path):
    import gzip

    from scipy import io

    from unmix.cli._files import read_data, read_reference

    spots = ad.read_h5ad(files / "spots.h5ad")
    folder = tmp_path / "mtx"
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        io.mmwrite(file, spots.X.T)
    with gzip.open(folder / "barcodes.tsv.gz", "wt") as file:
        file.write("".join(f"{name}\n" for name in spots.obs_names))
    with gzip.open(folder / "features.tsv.gz", "wt") as file:
        file.write("".join(f"id_{name}\t{name}\tGene Expression\n" for name in spots.var_names))
    read = read_data(folder)
    assert list(read.var_names) == list(spots.var_names)
    np.testing.assert_array_equal(read.X.toarray(), spots.X.toarray())
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [0.5, 0.0]}, index=["g1", "g2"])
    table.to_csv(tmp_path / "s.tsv.gz", sep="\t")
    pd.testing.assert_frame_equal(read_reference(tmp_path / "s.tsv.gz"), table)


@pytest.mark.parametrize("name", ["p.tsv", "P.TSV", "P.Csv", "P.PARQUET"])
def test_the_ending_says_how_a_table_is_written_and_read_in_letters_of_any_size(name, tmp_path):
    from unmix.cli._files import read_reference, read_table, table

    values = pd.DataFrame({"a": [1.5, 2.0], "b, c": [0.1, 0.0]}, index=pd.Index(["x", "y"], name="spot"))
    table(values)(tmp_path / name)
    if name.endswith("PARQUET"):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name), values)
        pd.testing.assert_frame_equal(read_table(tmp_path / name), values)
        return
    separator = "," if name.lower().endswith("csv") else "\t"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name, sep=separator, index_col=0), values)
    pd.testing.assert_frame_equal(read_table(tmp_path / name).set_index("spot"), values)
    pd.testing.assert_frame_equal(read_reference(tmp_path / name), values)


def test_a_gene_named_like_a_missing_value_is_a_gene(tmp_path):
    """Influenza's NA, the fly's nan: pandas takes both for missing."""
    from unmix.cli._files import read_samples

    (tmp_path / "bulk.csv").write_text("gene,s1,s2\nNA,1,2\nnan,3,4\nHA,5,6\n")
    read = read_samples(tmp_path / "bulk.csv")
    assert list(read.var_names) == ["NA", "nan", "HA"]
    np.testing.assert_array_equal(read.X, [[1, 3, 5], [2, 4, 6]])


def test_bulk_samples_may_be_a_table(files, tmp_path, capsys):
    spots = ad.read_h5ad(files / "spots.h5ad")
    spots.to_df().T.to_csv(tmp_path / "bulk.tsv.gz", sep="\t")
    options = ["--reference", str(files / "cells.h5ad"), "--groupby", "cell_type", "--method", "nnls"]
    for name, out in ((tmp_path / "bulk.tsv.gz", "a.csv"), (files / "spots.h5ad", "b.csv")):
        with pytest.raises(SystemExit) as end:
            main(["deconvolve", str(name), *options, "--out", str(tmp_path / out)])
        assert end.value.code in (0, None)
    a, b = (pd.read_csv(tmp_path / name, index_col=0) for name in ("a.csv", "b.csv"))
    pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-7)
    spots.to_df().T.assign(symbol="x").to_csv(tmp_path / "words.csv")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["deconvolve", str(tmp_path / "words.csv"), *options, "--out", str(tmp_path / "c.csv")])
    assert "'symbol' has none" in capsys.readouterr().err
    table = spots.to_df().T
    table.to_csv(tmp_path / "semicolons.csv", sep=";")
    table.rename(index={table.index[1]: table.index[0]}).to_csv(tmp_path / "twice.csv")
    table.T.to_csv(tmp_path / "round.csv")
    said = {"semicolons": "separated by commas", "twice": "several rows", "round": "turn the data round"}
    for name, why in said.items():
        with pytest.raises(SystemExit):
            main(["deconvolve", str(tmp_path / f"{name}.csv"), *options, "--out", str(tmp_path / "c.csv")])
        assert why in capsys.readouterr().err
