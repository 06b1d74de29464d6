"""What every tool promises, whatever it computes: signature, slots, containers, threads, storage, failure."""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import unmix as um
from unmix._adata import write as writing

spec = importlib.util.spec_from_file_location("contracts", Path(__file__).with_name("contracts.py"))
contracts = importlib.util.module_from_spec(spec)
sys.modules["contracts"] = contracts
spec.loader.exec_module(contracts)
CASES = [pytest.param(case, id=name) for name, case in contracts.TOOLS.items()]
FUNCTIONS = [getattr(part, name) for part in (um.pp, um.tl) for name in part.__all__]
LIGHT = ("torch", "scanpy", "squidpy", "matplotlib", "sklearn")
ATTRIBUTES = ("obs", "var", "obsm", "varm", "uns", "layers")

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


def slots_of(adata):
    return {f"{a}[{key!r}]" for a in ATTRIBUTES for key in getattr(adata, a) if key is not None}


def values_of(adata, slots):
    """Numbers in the slots that were written, by slot."""
    found = {}
    for slot in sorted(slots):
        attribute, key = slot.split("[", 1)
        value = getattr(adata, attribute)[key[1:-2]]
        if attribute != "uns":
            value = value.cat.codes if isinstance(getattr(value, "dtype", None), pd.CategoricalDtype) else value
            found[slot] = np.asarray(value.toarray() if sparse.issparse(value) else value, dtype=float)
    return found


def written(case, adata, **changes):
    case.run(adata, **changes)
    return values_of(adata, case.slots)


@pytest.fixture(scope="module")
def expected():
    """What every tool writes for an in-memory CSR matrix on one thread, computed once."""
    cache = {}

    def get(case):
        if id(case) not in cache:
            cache[id(case)] = written(case, case.data(), n_jobs=1)
        return cache[id(case)]

    return get


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_signature(function):
    parameters = list(inspect.signature(function).parameters.values())
    assert parameters[0].name in ("adata", "data")
    assert sum(p.kind is not p.KEYWORD_ONLY for p in parameters) <= 3
    by_name = {p.name: p for p in parameters}
    if "copy" in by_name:
        assert by_name["copy"].kind is inspect.Parameter.KEYWORD_ONLY
        assert by_name["copy"].default is False
    for forbidden in ("random_state", "seed", "inplace"):
        assert forbidden not in by_name
    text = inspect.cleandoc(function.__doc__)  # Python 3.13 strips the indentation itself
    for name in by_name:
        assert f"\n{name}\n" in text or f"{name}," in text, f"{name} is not documented"


@pytest.mark.parametrize("case", CASES)
def test_slots_are_those_of_the_docstring(case):
    adata = case.data()
    before = slots_of(adata)
    assert case.run(adata) is None
    assert slots_of(adata) - before == case.slots
    params = adata.uns[next(s for s in case.slots if s.startswith("uns"))[5:-2]]["params"]
    assert params["unmix_version"] == um.__version__
    assert params["tool"] == case.tool.__name__


@pytest.mark.parametrize("container", ["dense", "csc", "csr_array", "float64", "int32", "uint8", "view", "fortran"])
@pytest.mark.parametrize("case", CASES)
def test_same_numbers_from_every_container_in_memory(case, container, expected):
    adata = case.data()
    if container == "view":
        wide = ad.concat([adata, adata[:3]], index_unique="-", pairwise=True)
        wide.obs[adata.obs.columns] = pd.concat([adata.obs, adata.obs[:3]]).to_numpy()
        view = wide[: adata.n_obs]
        assert view.is_view
        adata = view
    else:
        convert = {
            "dense": lambda X: X.toarray(),
            "fortran": lambda X: np.asfortranarray(X.toarray()),
            "csc": sparse.csc_matrix,
            "csr_array": sparse.csr_array,
            "float64": lambda X: X.astype(np.float64),
            "int32": lambda X: X.astype(np.int32),
            "uint8": lambda X: X.astype(np.uint8),  # sums and squares do not fit
        }[container]
        adata.X = convert(adata.X)
    for slot, values in written(case, adata).items():
        np.testing.assert_allclose(values, expected(case)[slot], rtol=case.tolerance, atol=1e-9, err_msg=slot)


@pytest.mark.parametrize("case", CASES)
def test_same_numbers_from_disk_and_dask(case, expected, tmp_path):
    da = pytest.importorskip("dask.array")
    adata = case.data()
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    results = {"backed": written(case, backed)}
    backed.file.close()
    lazy = case.data()
    lazy.X = da.from_array(lazy.X, chunks=(16, lazy.n_vars), asarray=False)
    results["dask"] = written(case, lazy)
    for container, result in results.items():
        for slot, values in result.items():
            np.testing.assert_allclose(
                values, expected(case)[slot], rtol=case.tolerance, atol=1e-9, err_msg=f"{container} {slot}"
            )


@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_threads(case, expected):
    for slot, values in written(case, case.data(), n_jobs=2).items():
        np.testing.assert_array_equal(values, expected(case)[slot], err_msg=slot)


@pytest.mark.parametrize("case", CASES)
def test_copy_leaves_the_input_alone(case, expected):
    adata = case.data()
    before = slots_of(adata)
    result = case.run(adata, copy=True)
    assert slots_of(adata) == before
    for slot, values in values_of(result, case.slots).items():
        np.testing.assert_array_equal(values, expected(case)[slot], err_msg=slot)


@pytest.mark.parametrize("file", ["x.h5ad", "x.zarr"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning", "ignore:.*Zarr format 3 specification:UserWarning")
def test_storage_round_trip(case, file, expected, tmp_path):
    adata = case.data()
    case.run(adata)
    if file.endswith("zarr"):
        pytest.importorskip("zarr")
        adata.write_zarr(tmp_path / file)
        back = ad.read_zarr(tmp_path / file)
    else:
        adata.write_h5ad(tmp_path / file)
        back = ad.read_h5ad(tmp_path / file)
    for slot, values in values_of(back, case.slots).items():
        np.testing.assert_array_equal(values, expected(case)[slot], err_msg=slot)
    part = back[:5].copy()
    assert slots_of(part) >= case.slots


@pytest.mark.parametrize("case", CASES)
def test_failure_while_writing_leaves_everything_as_it_was(case, monkeypatch):
    adata = case.data()
    before, X = slots_of(adata), adata.X.copy()
    n_slots = len(case.slots)
    for fail_at in range(n_slots):
        calls = iter(range(n_slots + 1))
        current = writing._current

        def failing(*args, calls=calls, fail_at=fail_at, current=current):
            if next(calls) == fail_at:
                raise KeyboardInterrupt
            return current(*args)

        with monkeypatch.context() as patch:
            patch.setattr(writing, "_current", failing)
            with pytest.raises(KeyboardInterrupt):
                case.run(adata)
        assert slots_of(adata) == before
    assert (adata.X != X).nnz == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("case", CASES)
def test_bad_values_are_refused(case, value):
    adata = case.data()
    adata.X[0, 0] = value
    before = slots_of(adata)
    with pytest.raises(ValueError, match="NaN or infinite|negative"):
        case.run(adata)
    assert slots_of(adata) == before


@pytest.mark.parametrize("case", CASES)
def test_other_objects_are_refused(case):
    with pytest.raises(TypeError, match="AnnData"):
        case.run(np.ones((3, 2)))
    with pytest.raises(KeyError, match="layer"):
        case.run(case.data(), layer="no such layer")
    with pytest.raises(ValueError, match="empty"):
        case.run(case.data()[:0].copy())


def test_import_is_light():
    code = f"import sys, unmix; print([m for m in {LIGHT!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
