"""Fixtures shared by all tests."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def two_workers() -> Iterator[Any]:
    """Start two workers in processes of their own, which come back when they are killed."""
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as running:
            yield running


@contextmanager
def connected(cluster: Any) -> Iterator[Any]:
    """Connect to the two workers."""
    with pytest.importorskip("distributed").Client(cluster) as client:
        client.wait_for_workers(2, timeout=120)
        yield client


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two workers for all tests that kill none."""
    with two_workers() as running:
        yield running


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """Connect to the shared workers for the time of one test."""
    with connected(cluster) as client:
        yield client


@pytest.fixture
def mortal() -> Iterator[Any]:
    """Connect to two workers of the test's own, which it may kill: distributed now and then does not bring them back."""
    with two_workers() as running, connected(running) as client:
        yield client


@pytest.fixture(scope="session")
def sections() -> Any:
    """Proportions of 30, 20 and 12 spots on three sections, each with an image at a resolution of its own."""
    import anndata as ad
    import numpy as np

    import unmix as um

    slides, reference = {}, None
    kinds = {"late": ((5, 6), 100.0, 0), "early": ((2, 11), 250.0, 2), "middle": ((4, 3), 40.0, 0)}
    for seed, (name, (shape, step, lost)) in enumerate(kinds.items()):
        spots, reference = um.datasets.pbmc_spots(shape=shape, rng=seed)
        spots = spots[lost:].copy()
        spots.obsm["spatial"] = (spots.obsm["spatial"] + 1) * step
        height, width = ((np.ptp(spots.obsm["spatial"], axis=0)[::-1] + 4 * step) * 0.1).astype(int)
        factors = {"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 0.55 * step}
        image = np.full((height, width, 3), 0.25 * (seed + 1))
        spots.uns["spatial"] = {name: {"images": {"hires": image}, "scalefactors": factors}}
        slides[name] = spots
    adata = ad.concat(slides, label="section", index_unique="-", uns_merge="unique")
    adata.obs["section"] = adata.obs["section"].cat.reorder_categories(["early", "middle", "late"])
    um.tl.deconvolve(adata, reference, groupby="cell_type", method="nnls")
    return adata
