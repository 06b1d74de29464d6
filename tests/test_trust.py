"""Nothing in the package can run what a file holds: no pickle, no eval, no shell, no unchecked download."""

import ast
import json
from pathlib import Path

import pytest

import unmix as um

SOURCE = Path(um.__file__).parent
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess", "yaml", "telnetlib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save", "pd.read_pickle",
         "pandas.read_pickle", "yaml.load", "urllib.request.urlopen", "urlopen", "urlretrieve", "requests.get",
         "tarfile.open", "shutil.unpack_archive"}  # fmt: skip


def name_of(node):
    """Return the dotted name that is called."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def unsafe(path):
    """Return what in a module could run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            options = [k for k in node.keywords if k.arg in ("allow_pickle", "shell") and getattr(k.value, "value", 1)]
            found += [name] if name in CALLS or options else []
    return found


def test_no_code_comes_from_data(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\nfrom yaml import load\nnp.load(f, allow_pickle=True)\neval(x)\nos.system(x)\n")
    assert sorted(unsafe(bad)) == ["eval", "np.load", "os.system", "pickle", "yaml"]
    modules = sorted(SOURCE.rglob("*.py"))
    assert len(modules) > 100
    assert {str(path.relative_to(SOURCE)): found for path in modules if (found := unsafe(path))} == {}


def test_every_public_data_set_has_its_checksum():
    for address, sha256 in um.datasets.REGISTRY.values():
        assert address.startswith("https://")
        assert len(sha256) == 64
        int(sha256, 16)


def test_a_download_without_its_checksum_is_refused():
    with pytest.raises(ValueError, match="sha256"):
        um.datasets.fetch("https://example.org/data.h5ad")
    with pytest.raises(ValueError, match="sha256"):
        um.datasets.fetch("https://example.org/data.h5ad", "abc")


@pytest.mark.parametrize("header", [2**63, 2**30, 0])
def test_a_header_that_says_more_than_the_file_holds_is_refused_before_it_is_read(header, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(header.to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="damaged"):
        um.load(path)


def test_numbers_of_a_kind_that_numpy_lacks_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    about = {"format": "unmix.autoencoder/1"}
    header = json.dumps({"__metadata__": about, "w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"00")
    with pytest.raises(ValueError, match="damaged"):
        um.load(path)
