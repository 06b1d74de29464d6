"""Fixtures shared by all tests."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:  # all that is no autoencoder works without it
    collect_ignore = [f"core/test_{name}.py" for name in ("autoencoder", "cuda", "likelihoods", "team")]
    collect_ignore += ["tl/test_autoencoder.py", "tl/test_denoise.py"]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data (../shared/data) is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Folder of reference answers beside the project."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip("the reference answers (../shared/reference) are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two workers in processes of their own, which come back when they are killed."""
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as running:
            yield running


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """Connect to the two workers for the time of one test."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster) as connected:
        connected.wait_for_workers(2, timeout=120)
        yield connected
