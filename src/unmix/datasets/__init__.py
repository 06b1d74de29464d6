"""Data with known truth: embedded real cells, simulators, downloads with checksums."""

from unmix.datasets._pbmc_spots import pbmc_spots
from unmix.datasets._pool import pool_cells, split_cells

__all__ = ["pbmc_spots", "pool_cells", "split_cells"]
