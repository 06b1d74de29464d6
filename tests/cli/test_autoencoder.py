"""The autoencoders from the shell give what the functions give."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import unmix as um
from unmix.cli import main


@pytest.mark.parametrize(("command", "key"), [("autoencoder", "ae"), ("zinb-ae", "zinb_ae")])
def test_files_hold_what_the_functions_give(command, key, tmp_path, capsys):
    r = np.random.default_rng(0)
    adata = ad.AnnData(r.poisson(r.gamma(0.3, 1, (60, 3)) @ r.gamma(0.3, 20, (3, 40))).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(60)], [f"g{i}" for i in range(40)]
    adata.obs["chip"] = ["a", "b"] * 30
    adata.write_h5ad(tmp_path / "x.h5ad")
    names = {"--out": "y.h5ad", "--latent": "y.csv", "--model": "y.safetensors", "--plot": "y.png"}
    outputs = [word for option, name in names.items() for word in (option, str(tmp_path / name))]
    options = ["--n-latent", "3", "--max-epochs", "2", "--covariates", "chip", "--denoise"]
    with pytest.raises(SystemExit) as end:
        main([command, str(tmp_path / "x.h5ad"), *options, *outputs])
    assert end.value.code in (0, None)
    assert "wrote" in capsys.readouterr().out
    getattr(um.tl, key if key == "zinb_ae" else "autoencoder")(adata, 3, max_epochs=2, covariates="chip", denoise=True)
    back = ad.read_h5ad(tmp_path / "y.h5ad")
    np.testing.assert_array_equal(back.obsm[f"X_{key}"], adata.obsm[f"X_{key}"])
    np.testing.assert_array_equal(back.layers[f"{key}_denoised"], adata.layers[f"{key}_denoised"])
    table = pd.read_csv(tmp_path / "y.csv", index_col=0)
    np.testing.assert_allclose(table, adata.obsm[f"X_{key}"], rtol=1e-5)
    assert list(table) == list(um.get.as_anndata(adata, key=key).var_names) == [f"{key}_1", f"{key}_2", f"{key}_3"]
    um.tl.transform(adata, um.load(tmp_path / "y.safetensors"), key=key, key_added="again")
    np.testing.assert_array_equal(adata.obsm["X_again"], adata.obsm[f"X_{key}"])
    assert (tmp_path / "y.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("command", ["autoencoder", "zinb-ae"])
def test_options_reach_the_functions(command, tmp_path):
    r = np.random.default_rng(0)
    adata = ad.AnnData(r.poisson(1.0, (60, 20)).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(60)], [f"g{i}" for i in range(20)]
    adata.write_h5ad(tmp_path / "x.h5ad")
    given = {
        "n_latent": 3, "hidden": (16, 8), "max_epochs": 2, "batch_size": 20, "learning_rate": 0.01, "mask": 0.25,
        "ridge": 0.5, "device": "cpu", "on_interrupt": "keep",
    }  # fmt: skip
    words = [w for k, vs in given.items() for v in np.atleast_1d(vs) for w in (f"--{k.replace('_', '-')}", str(v))]
    more = {"kind": "vae", "n_samples": 2, "likelihood": "zinb"} if command == "autoencoder" else {}
    words += [w for k, v in more.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    files = [str(tmp_path / "x.h5ad"), "--out", str(tmp_path / "y.h5ad")]
    with pytest.raises(SystemExit) as end:
        main([command, *files, *words, "--genes", "g3", "--genes", "g5"])
    assert end.value.code in (0, None)
    getattr(um.tl, command.replace("-", "_"))(adata, **given, **more, denoise=["g3", "g5"])
    back = ad.read_h5ad(tmp_path / "y.h5ad")
    for name, values in adata.obsm.items():
        np.testing.assert_array_equal(back.obsm[name], values)
    for name, layer in adata.layers.items():
        assert (back.layers[name] != layer).nnz == 0
    with pytest.raises(SystemExit) as end:  # nothing was interrupted
        main([command, *files, "--force", "--resume", "--key-added", "other"])
    assert end.value.code == 1
