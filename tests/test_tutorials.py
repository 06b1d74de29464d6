"""Every tutorial runs as it is stored, is stored with its outputs and no path of a machine, and takes a real tissue."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "tutorials").glob("*.ipynb"))
RUN = "import sys, nbformat, nbclient; nbclient.NotebookClient(nbformat.read(sys.argv[1], 4), timeout=240).execute()"


def run(path):
    env = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", RUN, str(path)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_tutorial_runs(path):
    run(path)


@pytest.mark.realdata
def test_the_switch_to_a_tissue_of_ones_own(shared_data, tmp_path):
    """The first tutorial on a real tissue, given as the paths at its top: every fourth spot, so that it is quick."""
    folder = shared_data / "st_mob_rep11"
    tissue = ad.read_h5ad(next(folder.glob("*.h5ad")))
    tissue[::4].copy().write_h5ad(tmp_path / "tissue.h5ad")
    notebook = json.loads(NOTEBOOKS[0].read_text())
    switch = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    given = {"SPOTS": str(tmp_path / "tissue.h5ad"), "CELLS": str(shared_data / "seqfish_ob/cells.h5ad")}
    source = "".join(switch["source"])
    for name, value in given.items():
        source, n = re.subn(rf"^{name} = None.*$", f"{name} = {value!r}", source, flags=re.M)
        assert n == 1
    switch["source"] = source
    (tmp_path / "tutorial.ipynb").write_text(json.dumps(notebook))
    run(tmp_path / "tutorial.ipynb")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_tutorial_is_stored_with_outputs(path):
    notebook = json.loads(path.read_text())["cells"]
    cells = [c for c in notebook if c["cell_type"] == "code"]
    assert sum(bool(c["outputs"]) for c in cells) >= len(cells) / 2
    outputs = [o for c in cells for o in c["outputs"]]
    text = json.dumps([o for o in outputs if o["output_type"] == "stream"])
    assert "site-packages" not in text
    assert str(path.parents[1]) not in text
    assert not any(o["output_type"] == "error" or o.get("name") == "stderr" for o in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_tutorial_says_what_one_will_learn_and_has_a_switch(path):
    first, second = json.loads(path.read_text())["cells"][:2]
    text = "".join(first["source"])
    assert text.startswith(f"# {path.stem[0]}. ")
    assert "**You will learn** to" in text
    assert "**counts**" in text
    assert re.search(r"^[A-Z]+ = None", "".join(second["source"]), re.M)
