"""Data with known truth: embedded real cells, simulators, downloads with checksums."""

from unmix.datasets._download import REGISTRY, fetch
from unmix.datasets._pbmc_spots import pbmc_spots
from unmix.datasets._pool import pool_cells, split_cells
from unmix.datasets._read import read
from unmix.datasets._simulate import simulate_spots

__all__ = ["REGISTRY", "fetch", "pbmc_spots", "pool_cells", "read", "simulate_spots", "split_cells"]
