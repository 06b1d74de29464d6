"""An error or interrupt at any step leaves an AnnData as it was; a process that is killed leaves the old file or the new."""

import functools
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import unmix as um
from unmix._adata.write import Slots, write


def load(name):
    """Return a module beside this file under a name that other processes find, too."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


contracts, judge, steps, shell = (load(name) for name in ("contracts", "same", "injection", "shell"))
CASES = [pytest.param(case, id=name) for name, case in contracts.TOOLS.items()]

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


@pytest.mark.parametrize("case", CASES)
def test_an_interrupt_at_any_step_of_a_tool_leaves_everything_as_it_was(case):
    adata, done = case.data(), case.data()
    before = judge.fingerprint(adata)
    case.run(case.data(), n_jobs=1)  # what is imported and compiled once is no step of a later call
    counted = steps.Steps()
    counted.run(lambda: case.run(done, n_jobs=1))
    after, (start, *_, end) = judge.fingerprint(done), counted.window
    chosen = sorted({int(n) for n in [*np.linspace(3, start, 2), *np.linspace(start + 1, end - 1, 3)]})
    missed = 0
    for n in chosen:
        reached = steps.interrupted(n, functools.partial(case.run, adata, n_jobs=1))
        if not reached or judge.difference(before, judge.fingerprint(adata), added=False):
            # steps vary a little from call to call: this one was past the writing, and everything is there
            assert not judge.difference(after, judge.fingerprint(adata), added=False), f"step {n} of {counted.count}"
            adata, missed = case.data(), missed + 1
    assert missed <= 1
    steps.interrupted(counted.count - 1, lambda: case.run(adata, n_jobs=1))
    # after the last step of all, everything has been written, and nothing is half there
    assert not judge.difference(after, judge.fingerprint(adata), added=False)


def whole():
    """Return an object, and slots of every kind, half of which are there already."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.random((6, 4)).astype(np.float32))
    adata.obs["a"], adata.var["a"], adata.uns["a"] = np.arange(6), list("wxyz"), {"old": np.ones(2)}
    adata.obsm["a"], adata.varm["a"], adata.layers["a"] = rng.random((6, 2)), rng.random((4, 2)), rng.random((6, 4))
    table = pd.DataFrame(rng.random((6, 2)), columns=["x/y", "z"])
    new = Slots(
        obs={"a": pd.Categorical(list("ababab")), "b": np.zeros(6)}, var={"a": np.ones(4), "b": np.ones(4)},
        obsm={"a": table, "b": np.ones((6, 1))}, varm={"a": np.ones((4, 1)), "b": np.ones((4, 1))},
        uns={"a": {"new": {1, 2}}, "b": {"c": table}}, layers={"a": np.zeros((6, 4)), "b": np.ones((6, 4))},
    )  # fmt: skip
    return adata, new


@pytest.mark.parametrize("view", [False, True])
def test_an_interrupt_at_any_step_of_writing_leaves_everything_as_it_was(view):
    def target():
        adata, slots = whole()
        return (adata[:] if view else adata), slots

    write(*target())  # what libraries do once is no step of a later call
    adata, slots = target()
    before = judge.fingerprint(adata)
    counted = steps.Steps()
    counted.run(lambda: write(*target()))
    chosen, missed = range(0, counted.window[-1], 61), 0
    for n in chosen:
        if steps.interrupted(n, functools.partial(write, adata, slots)):
            assert not judge.difference(before, judge.fingerprint(adata), added=False), f"step {n}"
        else:  # steps vary a little from call to call
            missed += 1
        if adata.is_view != view or "b" in adata.uns:
            adata, slots = target()
    assert missed <= len(chosen) // 20


# --- processes that are killed -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes():
    """Processes that have imported everything, forked from one that has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["anndata", "scanpy", "numba", "torch", "unmix.tl", "unmix.get", "unmix.cli"])
    return context


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("files")
    contracts.counts().write_h5ad(place / "spots.h5ad")
    contracts.profiles().to_csv(place / "signature.csv")
    contracts.batches().write_h5ad(place / "batches.h5ad")
    half = contracts.counts().n_vars // 2
    contracts.counts()[:, :half].write_h5ad(place / "rna.h5ad")
    contracts.counts()[:, half:].write_h5ad(place / "adt.h5ad")
    return place


COMMANDS = {
    "deconvolve": ["spots.h5ad", "--reference", "signature.csv", "--method", "nnls", "--out", "OUT.csv",
                   "--out-h5ad", "OUT.h5ad"],
    "factorize": ["spots.h5ad", "--n-components", "3", "--out", "OUT.h5ad", "--loadings", "OUT.csv"],
    "archetypes": ["spots.h5ad", "--n-archetypes", "3", "--out", "OUT.csv", "--out-h5ad", "OUT.h5ad"],
    "joint-nmf": ["batches.h5ad", "--n-components", "2", "--batch-key", "batch", "--out", "OUT.h5ad"],
    "autoencoder": ["spots.h5ad", "--n-latent", "2", "--max-epochs", "2", "--likelihood", "nb", "--out", "OUT.h5ad"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_leaves_the_old_files_or_the_new(name, processes, folder, tmp_path):
    arguments = [name, *(a.replace("OUT", str(tmp_path / "out")) for a in COMMANDS[name]), "--force"]
    start = time.monotonic()
    assert shell.finish(processes, shell.command, arguments, str(folder)) == 0
    seconds = time.monotonic() - start
    outputs = sorted(tmp_path.iterdir())
    old = b"what was there before"
    for share in (0.5, 0.8, 0.95):
        for path in outputs:
            path.write_bytes(old)
        killed = processes.Process(target=shell.command, args=(arguments, str(folder)))
        killed.start()
        killed.join(seconds * share)
        killed.kill()
        killed.join()
        for path in outputs:
            if path.read_bytes() != old:
                opened = ad.read_h5ad(path).n_obs if path.suffix == ".h5ad" else len(pd.read_csv(path))
                assert opened > 0
        for left in set(tmp_path.iterdir()) - set(outputs):
            assert left.name.startswith(".out"), f"{left.name} cannot be told from a result"
            left.unlink()


LONG = {
    "metagenes": ("X_metagenes", {"n_components": 3, "n_runs": 24, "max_distance": 2.0, "n_jobs": 1}, 5),
    "autoencoder": ("X_ae", {"n_latent": 3, "likelihood": "nb", "max_epochs": 60, "n_jobs": 1}, 1),
}


@pytest.mark.parametrize("tool", LONG)
def test_a_long_run_that_is_killed_goes_on_to_the_same_bits(tool, processes, tmp_path):
    slot, options, least = LONG[tool]
    kept, out = tmp_path / "kept", tmp_path / "result.npy"
    job = (tool, {**options, "checkpoint": str(kept)}, slot, str(out))
    killed = processes.Process(target=shell.run_tool, args=job)
    killed.start()
    until = time.monotonic() + 60
    while len(list(kept.rglob("*.npz")) + list(kept.rglob("*.safetensors"))) < least and time.monotonic() < until:
        time.sleep(0.005)
    killed.kill()
    killed.join()
    assert kept.exists()
    assert not out.exists(), "the run ended before it could be killed"
    assert shell.finish(processes, shell.run_tool, *job) == 0
    undisturbed = contracts.counts()
    getattr(um.tl, tool)(undisturbed, **options)
    np.testing.assert_array_equal(np.load(out), undisturbed.obsm[slot])


def test_two_processes_share_the_folder_of_a_long_run(processes, tmp_path):
    slot, options, _ = LONG["metagenes"]
    kept = str(tmp_path / "kept")
    jobs = [("metagenes", {**options, "checkpoint": kept}, slot, str(tmp_path / f"{i}.npy")) for i in range(2)]
    both = [processes.Process(target=shell.run_tool, args=job) for job in jobs]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy"))
    assert len(list((tmp_path / "kept").glob("*/run*.npz"))) == options["n_runs"]


def test_two_processes_share_the_cache_of_compiled_code(tmp_path):
    code = "import numpy as np\nfrom unmix.core.simplex import nnls\nprint(nnls(np.eye(3), np.ones((2, 3))).sum())"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] == b"6.0\n"


def test_two_processes_share_the_cache_of_downloads(processes, tmp_path):
    import hashlib
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Say nothing."""

    served = tmp_path / "served"
    served.mkdir()
    data = os.urandom(300_000)
    (served / "data.bin").write_bytes(data)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    job = (f"http://127.0.0.1:{server.server_port}/data.bin", hashlib.sha256(data).hexdigest(), str(tmp_path / "cache"))
    both = [processes.Process(target=shell.download, args=job) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    server.shutdown()
    server.server_close()
    assert [process.exitcode for process in both] == [0, 0]
    (found,) = (tmp_path / "cache").iterdir()
    assert found.read_bytes() == data


# --- a full disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deconvolve", "factorize"])
def test_a_full_disk_is_told_and_the_old_file_is_left(name, processes, folder, tmp_path):
    arguments = [name, *(a.replace("OUT", str(tmp_path / "out")) for a in COMMANDS[name]), "--force"]
    (tmp_path / "out.h5ad").write_bytes(b"old")
    (tmp_path / "out.csv").write_bytes(b"old")
    said = tmp_path / "said"
    assert shell.finish(processes, shell.command, arguments, str(folder), 1000, str(said)) == 1
    assert said.read_text().startswith("unmix: ")
    assert len(said.read_text().splitlines()) == 1
    assert (tmp_path / "out.h5ad").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.h5ad", "said"]


@pytest.mark.parametrize("room", [500, 1000, 5000, 20_000])
def test_a_full_disk_is_told_where_modalities_are_written(room, processes, folder, tmp_path):
    pytest.importorskip("mudata")
    out, said = tmp_path / "out.h5mu", tmp_path / "said"
    out.write_bytes(b"old")
    arguments = ["joint-nmf", "rna.h5ad", "adt.h5ad", "--n-components", "2", "--out", str(out), "--force"]
    assert shell.finish(processes, shell.command, arguments, str(folder), room, str(said)) == 1
    assert said.read_text().startswith("unmix: ")
    assert len(said.read_text().splitlines()) == 1
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5mu", "said"]


def test_a_full_file_system_is_told_and_the_old_file_is_left(processes, folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (small / "out.h5ad").write_bytes(b"old")
        arguments = ["factorize", "spots.h5ad", "--n-components", "3", "--out", str(small / "out.h5ad"), "--force"]
        said = tmp_path / "said"
        assert shell.finish(processes, shell.command, arguments, str(folder), 0, str(said)) == 1
        assert said.read_text().startswith("unmix: ")
        assert "No space left" in said.read_text()
        assert len(said.read_text().splitlines()) == 1
        assert [p.name for p in small.iterdir()] == ["out.h5ad"]
        assert (small / "out.h5ad").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(small)], check=True)
