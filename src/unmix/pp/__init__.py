"""Preparation: signatures of cell types from a labelled reference."""

from unmix.pp._signatures import signatures

__all__ = ["signatures"]
