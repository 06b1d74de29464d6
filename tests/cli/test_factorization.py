"""The factorisations from the shell give what the functions give."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import unmix as um
from unmix.cli import main


@pytest.mark.parametrize(
    "command",
    [["factorize", "--n-components", "3"], ["metagenes", "--n-components", "3", "--n-runs", "4"],
     ["metagenes", "--n-components", "auto", "--n-runs", "4"],
     ["joint-nmf", "--n-components", "3", "--batch-key", "batch"]],
)  # fmt: skip
def test_files_hold_what_the_functions_give(command, tmp_path, capsys):
    r = np.random.default_rng(0)
    adata = ad.AnnData(r.poisson(r.gamma(0.3, 1, (60, 3)) @ r.gamma(0.3, 20, (3, 40))).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(60)], [f"g{i}" for i in range(40)]
    adata.obs["batch"] = ["a", "b"] * 30
    adata.write_h5ad(tmp_path / "x.h5ad")
    outputs = ["--out", str(tmp_path / "y.h5ad"), "--loadings", str(tmp_path / "y.csv")]
    with pytest.raises(SystemExit) as end:
        main([command[0], str(tmp_path / "x.h5ad"), *command[1:], *outputs])
    assert end.value.code in (0, None)
    assert "wrote" in capsys.readouterr().out
    name, key = {"factorize": ("factorize", "nmf"), "joint-nmf": ("joint_nmf",) * 2}.get(command[0], ("metagenes",) * 2)
    options = {"n_runs": 4} if name == "metagenes" else {"batch_key": "batch"} if name == "joint_nmf" else {}
    getattr(um.tl, name)(adata, "auto" if "auto" in command else 3, **options)
    back = ad.read_h5ad(tmp_path / "y.h5ad")
    np.testing.assert_array_equal(back.varm[key], adata.varm[key])
    np.testing.assert_allclose(pd.read_csv(tmp_path / "y.csv", index_col=0), adata.varm[key], rtol=1e-6, atol=1e-9)


def test_metagenes_take_gene_sets_batches_and_a_checkpoint(tmp_path):
    r = np.random.default_rng(0)
    adata = ad.AnnData(r.poisson(r.gamma(0.3, 1, (60, 3)) @ r.gamma(0.3, 20, (3, 40))).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(60)], [f"g{i}" for i in range(40)]
    adata.obs["batch"] = ["a", "b"] * 30
    adata.write_h5ad(tmp_path / "x.h5ad")
    pd.DataFrame({"source": "set", "target": adata.var_names[:8]}).to_csv(tmp_path / "net.csv", index=False)
    options = ["--n-components", "3", "--n-runs", "4", "--batch-key", "batch", "--net", str(tmp_path / "net.csv")]
    options += ["--checkpoint", str(tmp_path / "runs"), "--out", str(tmp_path / "y.h5ad")]
    with pytest.raises(SystemExit) as end:
        main(["metagenes", str(tmp_path / "x.h5ad"), *options])
    assert end.value.code in (0, None)
    assert len(list((tmp_path / "runs").glob("*/run*.npz"))) == 4
    assert um.get.enrichment(ad.read_h5ad(tmp_path / "y.h5ad"))["source"].eq("set").all()
