"""Preparation: counts behind normalised values, signatures of cell types from a labelled reference."""

from unmix.pp._recover_counts import recover_counts
from unmix.pp._signatures import signatures

__all__ = ["recover_counts", "signatures"]
