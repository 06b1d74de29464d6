"""Tools: each answers one question about the AnnData it is given, and writes the answer into it."""

from unmix.tl._deconvolve import deconvolve
from unmix.tl._factorize import factorize
from unmix.tl._joint_nmf import joint_nmf
from unmix.tl._metagenes import metagenes
from unmix.tl._starfysh_archetypes import starfysh_archetypes
from unmix.tl._transform import transform

__all__ = ["deconvolve", "factorize", "joint_nmf", "metagenes", "starfysh_archetypes", "transform"]
