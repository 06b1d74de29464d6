"""Two processes that train one network together take the steps of one."""

import json
import os
import runpy
import subprocess
import sys

import h5py
import numpy as np
import pytest

from unmix.core.team import Team

SCRIPT = """
import json, sys
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from common import train
dist.init_process_group("gloo")
for kind in sys.argv[2:]:
    with open(f"{sys.argv[1]}/{kind}{dist.get_rank()}.json", "w") as file:
        json.dump(train(kind), file)
dist.destroy_process_group()
"""
COMMON = """
from pathlib import Path
import h5py, numpy as np
from unmix.core.autoencoder import Options, fit
from unmix.core.networks import Design
from unmix.core.training import Rows

def train(kind):
    # single precision throughout: a difference in the last bit can flip what bfloat16 rounds to
    options = Options(max_epochs=4, batch_size=64, device="cpu", precision="float32")
    with h5py.File(Path(__file__).with_name("counts.h5"), "r") as file:
        X = file["X"]
        totals = X[:].sum(axis=1, dtype=float)
        rows = Rows(X, totals, np.zeros(len(totals), np.int64), np.zeros((len(totals), 0), np.float32))
        found = fit(rows, Design(X.shape[1], 4, (16,), kind=kind, likelihood="zinb"), options)
    weights = {name: value.ravel().tolist() for name, value in found.weights.items()}
    return {"history": found.history, "weights": weights}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over the loopback device is tested on Linux only")
def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    rng = np.random.default_rng(0)
    levels = rng.gamma(0.5, 1.0, (3, 50))
    with h5py.File(tmp_path / "counts.h5", "w") as file:
        file["X"] = rng.poisson(3 * rng.dirichlet(np.full(3, 0.3), 403) @ levels).astype(np.float32)
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "common.py").write_text(COMMON)
    kinds = ["ae", "vae"]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run += [str(tmp_path / "train.py"), str(tmp_path), *kinds]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    train = runpy.run_path(str(tmp_path / "common.py"))["train"]
    for kind in kinds:
        alone = train(kind)
        first, second = (json.loads((tmp_path / f"{kind}{rank}.json").read_text()) for rank in range(2))
        assert first == second
        for name, values in alone["history"].items():
            np.testing.assert_allclose(first["history"][name], values, rtol=1e-5, err_msg=f"{kind} {name}")
        for name, values in alone["weights"].items():
            np.testing.assert_allclose(first["weights"][name], values, rtol=0.01, atol=0.002, err_msg=f"{kind} {name}")


def test_parts_are_all_of_a_batch_once():
    for n in (2, 5, 64):
        for size in (1, 2, 3):
            rows = [i for rank in range(size) for i in range(n)[Team(rank, size).part(n)]]
            assert rows == list(range(n))
