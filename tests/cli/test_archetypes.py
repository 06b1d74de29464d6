"""`unmix archetypes` writes what the functions return."""

import json

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from scipy import sparse

import unmix as um
from unmix.cli import main


def test_tables_are_those_of_the_functions(tmp_path):
    spots, _ = um.datasets.pbmc_spots()
    spots.write_h5ad(tmp_path / "spots.h5ad")
    sets = {"B": ["MS4A1", "CD79A", "CD79B"], "Monocyte": ["LYZ", "S100A8", "S100A9"]}
    (tmp_path / "sets.json").write_text(json.dumps(sets))
    names = {name: str(tmp_path / name) for name in ("spots.h5ad", "sets.json", "out.csv", "markers.csv", "map.png")}
    command = ["archetypes", names["spots.h5ad"], "--out", names["out.csv"], "--signatures", names["sets.json"]]
    command += ["--n-archetypes", "3", "--markers", names["markers.csv"], "--plot", names["map.png"]]
    with pytest.raises(SystemExit) as done:
        main(command)
    assert done.value.code in (0, None)
    um.tl.starfysh_archetypes(spots, 3, signatures=sets)
    table = pd.read_csv(names["out.csv"], index_col=0)
    np.testing.assert_allclose(table.to_numpy(), um.get.archetypes(spots, what="proportions").to_numpy(), atol=1e-6)
    assert (tmp_path / "map.png").stat().st_size > 0
    assert len(pd.read_csv(names["markers.csv"])) == len(um.get.markers(spots))


def test_neighbours_are_asked_where_wanted(tmp_path):
    spots, _ = um.datasets.pbmc_spots()
    n = spots.n_obs
    spots.obsp["spatial_connectivities"] = sparse.csr_array(
        sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(n, n))
    )
    spots.write_h5ad(tmp_path / "spots.h5ad")
    command = ["archetypes", str(tmp_path / "spots.h5ad"), "--out", str(tmp_path / "out.csv"), "--n-archetypes", "3"]
    with pytest.raises(SystemExit) as done:
        main([*command, "--smooth", "--out-h5ad", str(tmp_path / "out.h5ad")])
    assert done.value.code in (0, None)
    um.tl.starfysh_archetypes(spots, 3, smoothing="auto")
    stored = read_h5ad(tmp_path / "out.h5ad").uns["archetypes"]
    np.testing.assert_allclose(stored["smoothing"], spots.uns["archetypes"]["smoothing"])
    assert len(stored["smoothing_curve"]) > 1
