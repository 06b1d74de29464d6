"""Tools: each answers one question about the AnnData it is given, and writes the answer into it."""

from unmix.tl._autoencoder import autoencoder
from unmix.tl._deconvolve import deconvolve
from unmix.tl._denoise import denoise
from unmix.tl._factorize import factorize
from unmix.tl._joint_nmf import joint_nmf
from unmix.tl._metagenes import metagenes
from unmix.tl._starfysh_archetypes import starfysh_archetypes
from unmix.tl._transform import transform
from unmix.tl._zinb_ae import zinb_ae

__all__ = [
    "autoencoder",
    "deconvolve",
    "denoise",
    "factorize",
    "joint_nmf",
    "metagenes",
    "starfysh_archetypes",
    "transform",
    "zinb_ae",
]
