"""The documentation says what is so: every public name is on the API page and explained, and every block of code runs."""

import doctest
import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

import unmix as um
from unmix.cli import main

ROOT = Path(__file__).resolve().parents[1]
PARTS = (um.pp, um.tl, um.pl, um.get, um.metrics, um.datasets)
NAMES = [f"{part.__name__}.{name}" for part in PARTS for name in part.__all__]
NAMES += [f"unmix.{name}" for name in ("load", "report", "save", "set_verbosity", "settings")]
FUNCTIONS = {name: value for name in NAMES if inspect.isfunction(value := eval(name, {"unmix": um}))}
PAGES = ("README", *(f"docs/{name}" for name in ("getting_started", "which_tool", "numbers", "coming_from", "shell")))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that the pages use beside this one


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_on_the_api_page(name):
    assert re.search(rf"[ `]{re.escape(name)}$", (ROOT / "docs/api.md").read_text(), re.M)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_explains_its_parameters_and_shows_an_example(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^(\w+, )*{parameter}(, \w+)*$", text, re.M), f"{parameter} is not documented"
    examples = doctest.DocTestParser().get_examples(text)
    assert any(name.split(".")[-1] + "(" in e.source and doctest.SKIP not in e.options for e in examples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make the files that the pages read: spots and cells in every format, with an image."""
    here = tmp_path_factory.mktemp("pages")
    spots, cells = um.datasets.pbmc_spots(shape=(10, 12))
    cells.obs["donor"] = pd.Categorical(np.arange(cells.n_obs) % 2)
    for name, data in (("spots", spots), ("cells", cells)):
        data.write_h5ad(here / f"{name}.h5ad")
    cells.to_df().groupby(cells.obs["cell_type"].to_numpy()).mean().T.to_csv(here / "signature.csv")
    spots.to_df().T.to_csv(here / "bulk.csv")
    sets = {"B": ["CD79A", "CD79B", "MS4A1"], "Monocyte": ["LYZ", "S100A8", "S100A9"], "NK": ["NKG7", "GNLY", "PRF1"]}
    (here / "sets.json").write_text(json.dumps(sets))
    _write_mtx(spots, here / "filtered_feature_bc_matrix")
    (here / "visium/spatial").mkdir(parents=True)
    _write_10x_h5(spots, here / "filtered_feature_bc_matrix.h5")
    _write_10x_h5(spots, here / "visium/filtered_feature_bc_matrix.h5")
    _write_image(spots, here / "visium/spatial")
    return here


def _write_mtx(spots, folder):
    folder.mkdir()
    io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(spots.X.T.astype(int)))
    (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in spots.obs_names))
    (folder / "genes.tsv").write_text("".join(f"id_{name}\t{name}\n" for name in spots.var_names))


def _write_10x_h5(spots, path):
    by_barcode = sparse.csr_matrix(spots.X)
    names = {"id": [f"id_{g}" for g in spots.var_names], "name": list(spots.var_names)}
    names |= {"genome": ["GRCh38"] * spots.n_vars, "feature_type": ["Gene Expression"] * spots.n_vars}
    with h5py.File(path, "w") as file:
        file.attrs["library_ids"] = [b"sample"]
        matrix = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            matrix[key] = getattr(by_barcode, key).astype(np.int32)
        matrix["shape"] = np.array(by_barcode.T.shape)
        matrix["barcodes"] = np.array(spots.obs_names, dtype="S")
        for key, values in names.items():
            matrix[f"features/{key}"] = np.array(values, dtype="S")


def _write_image(spots, folder):
    from matplotlib import image

    xy = spots.obsm["spatial"] * 10 + 5
    rows = {"in_tissue": 1, "row": spots.obs["array_row"], "col": spots.obs["array_col"], "y": xy[:, 1], "x": xy[:, 0]}
    pd.DataFrame(rows, index=spots.obs_names).to_csv(folder / "tissue_positions_list.csv", header=False)
    scales = {"tissue_hires_scalef": 1.0, "tissue_lowres_scalef": 0.5, "spot_diameter_fullres": 8.0}
    (folder / "scalefactors_json.json").write_text(json.dumps(scales | {"fiducial_diameter_fullres": 12.0}))
    for name, side in (("hires", 120), ("lowres", 60)):
        image.imsave(folder / f"tissue_{name}_image.png", np.full((side, side, 3), 0.9))


@pytest.mark.parametrize("page", PAGES)
def test_the_code_on_the_page_runs(page, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "here"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace = {}
    for kind, code, expected in BLOCK.findall((ROOT / f"{page}.md").read_text()):
        capsys.readouterr()
        if kind == "python":
            exec(compile(code, f"{page}.md", "exec"), namespace)
        else:
            _run_in_the_shell(code)
        if expected:
            assert capsys.readouterr().out.rstrip() == expected.rstrip(), code


def _run_in_the_shell(code):
    """Run the lines that call unmix; others (git, make, pip) are left out."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.startswith("unmix "):
            with pytest.raises(SystemExit) as end:
                main(shlex.split(line, comments=True)[1:])
            assert end.value.code in (0, None), line
