"""Tools: each answers one question about the AnnData it is given, and writes the answer into it."""

from unmix.tl._deconvolve import deconvolve

__all__ = ["deconvolve"]
