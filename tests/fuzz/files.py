"""Spoiled files, and the commands of the shell that read them."""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from anndata import AnnData
from scipy import io as scipy_io

import unmix as um
from unmix.cli import main

from .calls import cells, profiles, results, sets, views
from .judge import Defect

KINDS = ("data.h5ad", "data.zarr", "tenx.h5", "tenx", "signature.csv", "signature.tsv.gz", "sets.json", "model.safetensors",
         "net.csv", "parts.h5mu", "joint.h5mu", "results.h5ad", "epochs.safetensors", "run0.npz")  # fmt: skip


@functools.cache
def originals() -> Path:
    """Return a folder with one sound file of every kind."""
    folder = Path(tempfile.mkdtemp(prefix="unmix-fuzz-"))
    adata = cells()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(folder / "data.h5ad")
        results().write_h5ad(folder / "results.h5ad")
        adata.write_zarr(folder / "data.zarr")
        _write_h5mu(folder / "parts.h5mu", views())
        um.tl.joint_nmf(fitted := views(), 2, max_iter=9, tol=0)
        _write_h5mu(folder / "joint.h5mu", fitted)
    _write_tenx(folder, adata)
    profiles().to_csv(folder / "signature.csv")
    profiles().to_csv(folder / "signature.tsv.gz", sep="\t")
    (folder / "sets.json").write_text(json.dumps(sets()))
    (folder / "net.csv").write_text("source,target,weight\n" + "".join(f"s,gene {i},1\n" for i in range(8)))
    um.save(results(), folder / "model.safetensors")
    um.tl.autoencoder(cells(), 2, likelihood="nb", max_epochs=1, hidden=(4,), checkpoint=folder / "epochs")
    next((folder / "epochs").glob("*")).rename(folder / "epochs.safetensors")
    um.tl.metagenes(cells(), 2, n_runs=2, n_top_genes=15, max_distance=2.0, checkpoint=folder / "runs")
    next((folder / "runs").glob("*/run0.npz")).rename(folder / "run0.npz")
    return folder


def _write_h5mu(path: Path, parts: dict[str, AnnData]) -> None:
    import mudata

    with mudata.set_options(pull_on_update=False):
        mudata.MuData(parts).write(path)


def _write_tenx(folder: Path, adata: AnnData) -> None:
    (folder / "tenx").mkdir()
    with gzip.open(folder / "tenx" / "matrix.mtx.gz", "wb") as file:
        scipy_io.mmwrite(file, adata.X.T.astype(int))
    with gzip.open(folder / "tenx" / "barcodes.tsv.gz", "wt") as file:
        file.write("".join(f"{name}\n" for name in adata.obs_names))
    with gzip.open(folder / "tenx" / "features.tsv.gz", "wt") as file:
        file.write("".join(f"{name}\t{name}\tGene Expression\n" for name in adata.var_names))
    with h5py.File(folder / "tenx.h5", "w") as file:
        group = file.create_group("matrix")
        X = adata.X.tocsr()
        for name, values in (("data", X.data.astype(int)), ("indices", X.indices), ("indptr", X.indptr)):
            group[name] = values
        group["shape"] = np.array(X.shape[::-1])
        group["barcodes"] = np.array(list(adata.obs_names), dtype="S")
        for name in ("id", "name"):
            group[f"features/{name}"] = np.array(list(adata.var_names), dtype="S")
        group["features/feature_type"] = np.array(["Gene Expression"] * X.shape[1], dtype="S")
        group["features/genome"] = np.array(["x"] * X.shape[1], dtype="S")


class Bomb:
    """What would leave a trace if a pickle were loaded."""

    trace = Path(tempfile.gettempdir()) / f"unmix-fuzz-bomb-{os.getpid()}"

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


WHOLE = ("sound", "truncated", "empty", "noise", "text", "pickle", "gzip", "prefix", "repeated", "header")
"""What can be done to the bytes of any file; single wrong bytes inside of an HDF5 file can hang the HDF5 library itself."""


def spoil_bytes(path: Path, random: Random) -> str:
    """Spoil a file whatever it holds."""
    data = bytearray(path.read_bytes())
    allowed = [*WHOLE] if path.suffix in (".h5ad", ".h5", ".h5mu") else [*WHOLE, "flipped", "zeros"]
    what = random.choice(allowed)
    at = random.randrange(max(len(data), 1))
    if what == "truncated":
        data = data[:at]
    elif what == "flipped":
        for _ in range(random.choice([1, 4, 40])):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif what == "zeros":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif what == "empty":
        data = bytearray()
    elif what == "noise":
        data = bytearray(random.randbytes(len(data)))
    elif what == "text":
        data = bytearray(b"a,b,c\n1,2\nx,,,,\n\x00\xff")
    elif what == "pickle":
        data = bytearray(pickle.dumps(Bomb()))
    elif what == "gzip":
        data = bytearray(gzip.compress(bytes(data))[: random.choice([20, None])])
    elif what == "prefix":
        data = bytearray(random.randbytes(8)) + data
    elif what == "repeated":
        data = data + data
    elif what == "header":
        data[:8] = (random.choice([0, 2**63, 2**40, len(data), 7])).to_bytes(8, "little")
    path.write_bytes(bytes(data))
    return what


def spoil_hdf5(path: Path, random: Random) -> str:
    """Spoil what an HDF5 file says of itself."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = random.choice(sorted(names))
        what = random.choice(["deleted", "huge", "text", "NaN", "negative", "cut", "external", "soft", "raw", "attribute",
                              "no attributes", "large index", "object", "loop"])  # fmt: skip
        item = file[name]
        if what == "deleted":
            del file[name]
        elif what == "attribute" and item.attrs:
            item.attrs[random.choice(sorted(item.attrs))] = random.choice(["nonsense", 3, np.array([1, 2]), ""])
        elif what == "no attributes":
            for key in list(item.attrs):
                del item.attrs[key]
        elif what == "external":
            del file[name]
            file[name] = h5py.ExternalLink(str(originals() / "data.h5ad"), "/X")
        elif what == "soft":
            del file[name]
            file[name] = h5py.SoftLink("/no/such")
        elif what == "loop":
            if isinstance(item, h5py.Group):
                item["again"] = file["/"]
        elif isinstance(item, h5py.Dataset) and item.shape:
            kept = dict(item.attrs)
            values = item[()]
            del file[name]
            _replace(file, name, values, what, random)
            for key, value in kept.items():
                file[name].attrs[key] = value
    return f"{name} {what}"


def _replace(file: Any, name: str, values: np.ndarray, what: str, random: Random) -> None:
    numeric = values.dtype.kind in "iuf"
    if what == "huge":
        file.create_dataset(
            name, shape=(10**9, *((10**6,) * (values.ndim - 1))), dtype="f8", chunks=(1024,) * values.ndim
        )
    elif what == "text":
        file.create_dataset(name, data=np.array(["x"] * len(values), dtype="S"))
    elif what == "NaN" and numeric:
        file.create_dataset(name, data=np.where(np.arange(values.size).reshape(values.shape) % 3 == 0, np.nan, values))
    elif what == "negative" and numeric:
        file.create_dataset(name, data=-values.astype(np.int64) - 1)
    elif what == "large index" and numeric:
        file.create_dataset(name, data=values.astype(np.int64) + random.choice([1, 7, 2**31, 2**62]))
    elif what == "raw":
        file.create_dataset(name, shape=(4,), dtype="u1", external=[("/etc/hostname", 0, 4)])
    elif what == "object":
        file.create_dataset(
            name, data=np.array([b"\x80\x04K\x01."] * max(len(values), 1), dtype=object), dtype=h5py.string_dtype()
        )
    else:
        file.create_dataset(name, data=values[: len(values) // 2])


def spoil_text(path: Path, random: Random) -> str:
    """Spoil a table or a list in text."""
    what = random.choice(list(TEXTS))
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    new = TEXTS[what](text).encode()
    path.write_bytes(gzip.compress(new) if path.suffix == ".gz" else new)
    return what


TEXTS: dict[str, Callable[[str], str]] = {
    "ragged": lambda text: text.replace("\n", ",,,\n", 3),
    "no header": lambda text: text.split("\n", 1)[-1],
    "header only": lambda text: text.split("\n", 1)[0],
    "twice": lambda text: text + text,
    "words": lambda text: text.replace("0.", "nought"),
    "infinite": lambda text: text.replace("0.", "inf", 4),
    "huge numbers": lambda text: text.replace("0.", "1e400", 2),
    "negative": lambda text: text.replace("0.", "-0.", 5),
    "empty names": lambda text: text.replace("gene 1", ""),
    "semicolons": lambda text: text.replace(",", ";").replace("\t", ";"),
    "quotes": lambda text: text.replace("gene", '"gene', 3),
    "nested": lambda text: "[" * 100_000,
    "nested object": lambda text: '{"a":' * 5000 + "1" + "}" * 5000,
    "numbers": lambda text: '{"A": [1, 2], "B": 3}',
    "list": lambda text: '["gene 1", "gene 2"]',
    "NaN": lambda text: '{"A": NaN}',
    "nulls": lambda text: '{"A": [null], "": []}',
    "script": lambda text: text.replace("gene 1", "<script>alert(1)</script>"),
    "null bytes": lambda text: text.replace("gene", "\0"),
    "long line": lambda text: text + "x" * 1_000_000,
}


def spoil_header(path: Path, random: Random) -> str:
    """Let the header of a safetensors file lie."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    about, name = header["__metadata__"], random.choice(sorted(names))
    what = random.choice(
        ["shape", "offsets", "type", "negative", "no metadata", "entry", "key", "lost", "renamed", "nested", "text"]
    )
    changes: dict[str, Callable[[], Any]] = {
        "shape": lambda: header[name].update(shape=[2**40, 2**40]),
        "offsets": lambda: header[name].update(data_offsets=[0, 2**50]),
        "type": lambda: header[name].update(dtype=random.choice(["I64", "BF16", "F64", "x"])),
        "negative": lambda: header[name].update(shape=[-1]),
        "no metadata": lambda: header.pop("__metadata__"),
        "entry": lambda: about.update(entry=random.choice(["{}", "[]", "null", "nonsense", '{"params": 3}'])),
        "key": lambda: about.pop("key", None),
        "lost": lambda: header.pop(name),
        "renamed": lambda: header.update({"other::name::" + name: header.pop(name)}),
        "nested": lambda: about.update(entry="[" * 50_000),
        "text": lambda: about.update(entry=about.get("entry", "").replace("gene", "x", 3).replace("1", "2", 5)),
    }
    changes[what]()
    new = json.dumps(header).encode()
    new += b" " * (-len(new) % 8)
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])
    return what


def spoil_folder(path: Path, random: Random) -> str:
    """Spoil one file of a folder, take it away, or let it lead elsewhere."""
    inside = sorted(p for p in path.rglob("*") if p.is_file())
    chosen = random.choice(inside)
    what = random.choice(["bytes", "bytes", "deleted", "link out", "link in", "folder", "metadata", "dots"])
    if what == "bytes":
        what = spoil_bytes(chosen, random)
    elif what == "metadata":
        described = [p for p in inside if p.name in ("zarr.json", ".zarray", ".zattrs")]
        if described:
            chosen = random.choice(described)
            text = chosen.read_text()
            chosen.write_text(
                text.replace(
                    random.choice(["14", "18", "null", "float", "shape", "0"]),
                    random.choice(["-1", "99999999999", "x", "null"]),
                )
            )
    else:
        chosen.unlink()
        if what == "link out":
            chosen.symlink_to("/etc/hostname")
        elif what == "dots":
            chosen.symlink_to(Path("..") / ".." / "sets.json")
        elif what == "link in":
            chosen.symlink_to(inside[0] if inside[0] != chosen else inside[-1])
        elif what == "folder":
            chosen.mkdir()
    return f"{chosen.name} {what}"


def spoil(path: Path, random: Random) -> str:
    """Spoil a file or folder of any kind."""
    if random.random() < 0.05:
        return "sound"
    if path.is_dir():
        return spoil_folder(path, random)
    if path.suffix in (".h5ad", ".h5", ".h5mu") and random.random() < 0.75:
        return spoil_hdf5(path, random)
    if path.suffix == ".safetensors" and random.random() < 0.6:
        return spoil_header(path, random)
    if path.suffix in (".csv", ".json", ".gz") and random.random() < 0.75:
        return spoil_text(path, random)
    if random.random() < 0.1:
        path.unlink()
        random.choice([lambda: path.symlink_to(path.name), path.mkdir, lambda: None])()
        return "a link to itself, a folder or nothing"
    return spoil_bytes(path, random)


@dataclass
class FileCase:
    """One command, or call, on a spoiled file."""

    kind: str
    random: Random
    folder: Path
    label: str = ""
    place: Path = field(init=False)

    def __post_init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(dir=self.folder))
        source = originals() / self.kind
        (shutil.copytree if source.is_dir() else shutil.copy)(source, self.place / self.kind)
        self.label = f"{self.kind}: {spoil(self.place / self.kind, self.random)}"
        self.before = _state(self.place)

    def inputs(self) -> dict[str, Any]:
        return {}

    def call(self) -> Any:
        path = self.place / self.kind
        if self.kind in ("epochs.safetensors", "run0.npz"):
            return self._resume()
        if self.kind == "model.safetensors":
            model = um.load(path)
            return um.tl.transform(cells(), model, key=next(iter(model.uns)))
        if self.random.random() < 0.2 and self.kind.startswith(("data", "tenx")):
            return um.datasets.read(path)
        return self._command(self._arguments(path))

    def _arguments(self, path: Path) -> list[str]:
        out, data = str(self.place / "out"), str(originals() / "data.h5ad")
        quick = {
            "signature.csv": ["deconvolve", data, "--reference", str(path), "--out", out + ".csv"],
            "sets.json": ["archetypes", data, "--signatures", str(path), "--n-archetypes", "2", "--out", out + ".csv"],
            "net.csv": ["metagenes", data, "--n-components", "2", "--n-runs", "2", "--n-top-genes", "15", "--net", str(path),
                        "--out", out + ".h5ad"],
            "parts.h5mu": ["joint-nmf", str(path), "--n-components", "2", "--max-iter", "9", "--out", out + ".h5mu"],
        }  # fmt: skip
        quick["signature.tsv.gz"] = quick["signature.csv"]
        if self.kind == "results.h5ad":
            return self.random.choice([["info", str(path), "--as-json"], ["report", str(path), "--out", out + ".html"]])
        if self.kind == "joint.h5mu":
            one = ["--modality", "rna"]
            return self.random.choice(
                [
                    ["info", str(path)],
                    ["report", str(path), *one, "--out", out + ".html"],
                    ["transform", data, "--fitted", str(path), *one, "--key", "joint_nmf", "--out", out + ".h5ad"],
                ]
            )
        general = [
            ["info", str(path)],
            ["factorize", str(path), "--n-components", "2", "--out", out + ".h5ad"],
            [
                "deconvolve",
                str(path),
                "--reference",
                str(originals() / "signature.csv"),
                "--method",
                "nnls",
                "--out",
                out + ".csv",
            ],
        ]
        return quick.get(self.kind) or self.random.choice(general)

    def _command(self, arguments: list[str]) -> Any:
        """Run the shell command; hand on the error that ended it."""
        told, said = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(said):
                main(arguments)
        except SystemExit as end:
            if not end.code:
                return "answer"
            if end.code != 1 or not told.getvalue().splitlines()[-1].startswith("unmix: "):
                raise Defect(f"ended with {end.code} and said {told.getvalue()[:300]!r}") from end
            if end.__cause__ is not None:
                raise end.__cause__ from None
            raise Defect(f"no reason: {told.getvalue()[:300]!r}") from end
        return "answer"

    def _resume(self) -> Any:
        """Put the file where a long run looks for it; the answer must be that of an undisturbed run."""
        path, folder = self.place / self.kind, self.place / "kept"
        if self.kind == "epochs.safetensors":
            options: dict[str, Any] = {"n_latent": 2, "likelihood": "nb", "max_epochs": 1, "hidden": (4,)}
            function, key = um.tl.autoencoder, "X_ae"
        else:
            options = {"n_components": 2, "n_runs": 2, "n_top_genes": 15, "max_distance": 2.0}
            function, key = um.tl.metagenes, "X_metagenes"
        function(cells(), checkpoint=folder, **options)
        target = next(folder.rglob("*.safetensors" if "latent" in str(options) else "run0.npz"))
        target.unlink()
        if path.is_file() and not path.is_symlink():
            shutil.copy(path, target)
        got, want = cells(), cells()
        function(got, checkpoint=folder, **options)
        function(want, **options)
        if not np.array_equal(got.obsm[key], want.obsm[key], equal_nan=True):
            raise Defect("a damaged checkpoint changed the answer")
        return "answer"

    def answer(self, result: Any) -> None:
        after = {name: mark for name, mark in _state(self.place).items() if name in self.before}
        if after != self.before:
            raise Defect("the file that was read is not as it was")
        if Bomb.trace.exists():
            Bomb.trace.rmdir()
            raise Defect("a pickle was loaded")
        hidden = [
            p.name for p in self.place.rglob(".*.*") if p.name not in (".zarray", ".zattrs", ".zgroup", ".zmetadata")
        ]
        if hidden:
            raise Defect(f"temporary files were left: {hidden}")
        shutil.rmtree(self.place)


def _state(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    return {str(p.relative_to(folder)): hashlib.sha1(p.read_bytes()).hexdigest() for p in files}


def draw(random: Random, folder: Path) -> FileCase:
    """Draw a kind of file, spoil one, and read it."""
    return FileCase(random.choice(KINDS), random, folder)
