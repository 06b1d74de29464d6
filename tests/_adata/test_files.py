"""Files that are damaged or lead nowhere, and names of files that are none: refused in words, before anything is written."""

import gzip
import io

import h5py
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from scipy.io import mmwrite

import unmix as um
from unmix._adata.files import open_file
from unmix._adata.h5ad import new_dense_h5ad


@pytest.fixture
def path(tmp_path):
    adata = AnnData(
        sparse.csr_matrix(np.eye(4, 3, dtype=np.float32)), layers={"counts": sparse.csr_matrix(np.eye(4, 3))}
    )
    adata.raw = adata
    adata.write_h5ad(tmp_path / "x.h5ad")
    return tmp_path / "x.h5ad"


@pytest.mark.parametrize("matrix", ["X", "layers/counts", "raw/X"])
@pytest.mark.parametrize(
    "values", [np.array(["x"] * 5, dtype="S"), np.array([0, 1, 2, 3, 99]), np.array([0, np.nan, 2, 3, 3])]
)
def test_indices_that_are_none_are_refused(path, matrix, values):
    with h5py.File(path, "r+") as file:
        del file[f"{matrix}/indptr"]
        file[f"{matrix}/indptr"] = values
    with pytest.raises(ValueError, match="could not be read"):
        open_file(path)


def test_groups_that_hold_themselves_are_refused(path):
    with h5py.File(path, "r+") as file:
        file["obsm/again"] = file["/"]
    with pytest.raises(ValueError, match="obsm/again leads back"):
        open_file(path)


def test_groups_with_two_names_are_read(path):
    with h5py.File(path, "r+") as file:
        file["layers/again"] = file["layers/counts"]
    assert set(open_file(path).layers) - {None} == {"counts", "again"}  # newer anndata has X among them


def test_a_matrix_is_not_written_where_there_is_no_folder(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="does not exist"),
        new_dense_h5ad(tmp_path / "no" / "x.h5ad", ["a"], ["b"]),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda adata: um.tl.metagenes(adata, 2, checkpoint=""),
        lambda adata: um.tl.autoencoder(adata, 2, checkpoint=""),
        lambda adata: um.tl.zinb_ae(adata, 2, checkpoint=""),
        lambda adata: um.tl.denoise(adata, out=""),
    ],
)
def test_an_empty_name_is_not_the_present_folder(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must name a file or folder"):
        call(AnnData(np.ones((20, 5), np.float32)))
    assert not list(tmp_path.iterdir())


def write_tenx(path, **changed):
    X = sparse.csr_matrix(np.eye(4, 3, dtype=np.float32))
    parts = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": np.array([3, 4])} | changed
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name, values in parts.items():
            group[name] = np.asarray(values)
        group["barcodes"] = np.array([f"c{i}" for i in range(4)], dtype="S")
        for name in ("id", "name", "feature_type", "genome"):
            kind = {"feature_type": "Gene Expression", "genome": "x"}.get(name)
            group[f"features/{name}"] = np.array([kind or f"g{i}" for i in range(3)], dtype="S")


def test_a_tenx_matrix_is_looked_at_before_it_is_turned(tmp_path):
    write_tenx(tmp_path / "x.h5")
    np.testing.assert_array_equal(open_file(tmp_path / "x.h5").X.toarray(), np.eye(4, 3))
    for changed in (
        {"indices": [0, 1, 2**31]},
        {"indptr": [0, 3, 1, 2, 3]},
        {"shape": [2, 4]},
        {"indices": [0.0, 1, 2]},
    ):
        write_tenx(tmp_path / "x.h5", **changed)
        with pytest.raises(ValueError, match="do not fit"):
            open_file(tmp_path / "x.h5")


TWICE = [*(f"G{g}" for g in range(6)), "G2", "CD3"]
KINDS = ["Gene Expression"] * 7 + ["Antibody Capture"]


def mtx_folder(folder, X, *, prefix="", genes="features.tsv", packed=False):
    folder.mkdir()
    kinds = [f"\t{kind}" for kind in KINDS] if genes == "features.tsv" else [""] * 8
    texts = {"barcodes.tsv": "".join(f"c{i}\n" for i in range(5))}
    texts[genes] = "".join(f"id{g}\t{name}{kind}\n" for g, (name, kind) in enumerate(zip(TWICE, kinds, strict=True)))
    buffer = io.BytesIO()
    mmwrite(buffer, sparse.coo_matrix(X.T))
    for name, content in {"matrix.mtx": buffer.getvalue(), **{n: t.encode() for n, t in texts.items()}}.items():
        (folder / f"{prefix}{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("prefix", ["", "GSM1_sample_"])
@pytest.mark.parametrize("genes", ["features.tsv", "genes.tsv"])
def test_matrices_of_cell_ranger_starsolo_and_repositories_are_read(genes, prefix, packed, tmp_path):
    """Symbols that occur twice are made unique; with kinds of features, the genes alone are kept."""
    X = np.random.default_rng(0).poisson(1.0, (5, 8))
    mtx_folder(tmp_path / "größe 1", X, prefix=prefix, genes=genes, packed=packed)
    read = open_file(tmp_path / "größe 1")
    n = 7 if genes == "features.tsv" else 8
    assert list(read.var_names) == [*TWICE[:6], "G2-1", "CD3"][:n]
    assert list(read.var["gene_ids"]) == [f"id{g}" for g in range(n)]
    assert list(read.obs_names) == [f"c{i}" for i in range(5)]
    np.testing.assert_array_equal(read.X.toarray(), X[:, :n])


def test_folders_that_are_ambiguous_or_incomplete_are_refused(tmp_path):
    X = np.ones((5, 8), int)
    mtx_folder(tmp_path / "two", X)
    (tmp_path / "two" / "b_matrix.mtx").write_bytes((tmp_path / "two" / "matrix.mtx").read_bytes())
    with pytest.raises(ValueError, match="several matrices: b_matrix.mtx, matrix.mtx"):
        open_file(tmp_path / "two")
    mtx_folder(tmp_path / "one", X)
    (tmp_path / "one" / "barcodes.tsv").write_text("c0\nc1\n")
    with pytest.raises(ValueError, match="5 barcodes x 8 genes, for 2 and 8 names"):
        open_file(tmp_path / "one")
    (tmp_path / "one" / "features.tsv").unlink()
    with pytest.raises(ValueError, match=r"lacks features.tsv or genes.tsv"):
        open_file(tmp_path / "one")


def test_symbols_that_occur_twice_in_a_10x_file_are_made_unique(tmp_path):
    X = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (5, 8)))
    with h5py.File(tmp_path / "a.H5", "w") as file:
        matrix = file.create_group("matrix")
        for part in ("data", "indices", "indptr"):
            matrix[part] = getattr(X, part).astype(np.int32)
        matrix["shape"], matrix["barcodes"] = np.array([8, 5]), np.array([f"c{i}" for i in range(5)], dtype="S")
        texts = {"id": [f"id{g}" for g in range(8)], "name": TWICE, "genome": ["G"] * 8, "feature_type": KINDS}
        for name, values in texts.items():
            matrix[f"features/{name}"] = np.array(values, dtype="S")
    read = open_file(tmp_path / "a.H5")
    assert list(read.var_names) == [*TWICE[:6], "G2-1"]
    np.testing.assert_array_equal(read.X.toarray(), X.toarray()[:, :7])


def test_a_folder_of_files_is_told_which_of_them_to_name(tmp_path):
    """Space Ranger's `outs`."""
    with pytest.raises(ValueError, match=r"neither a .zarr nor one with matrix.mtx, barcodes and features\.$"):
        open_file(tmp_path)
    (tmp_path / "spatial").mkdir()
    (tmp_path / "filtered_feature_bc_matrix").mkdir()
    for name in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"):
        (tmp_path / "filtered_feature_bc_matrix" / name).touch()
    (tmp_path / "filtered_feature_bc_matrix.h5").touch()
    with pytest.raises(
        ValueError, match=r"\['filtered_feature_bc_matrix', 'filtered_feature_bc_matrix.h5'\], name one"
    ):
        open_file(tmp_path)
