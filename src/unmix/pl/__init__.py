"""Pictures of what the tools have stored."""

from unmix.pl._archetype_geometry import archetype_simplex, archetype_tree
from unmix.pl._archetype_tables import archetype_markers, signature_matching
from unmix.pl._archetypes import archetype_selection, archetypes
from unmix.pl._autoencoder import denoised, training
from unmix.pl._factorization import loadings, rank_selection
from unmix.pl._joint import joint_loadings
from unmix.pl._metagenes import consensus, top_genes
from unmix.pl._proportions import proportions

__all__ = [
    "archetype_markers",
    "archetype_selection",
    "archetype_simplex",
    "archetype_tree",
    "archetypes",
    "consensus",
    "denoised",
    "joint_loadings",
    "loadings",
    "proportions",
    "rank_selection",
    "signature_matching",
    "top_genes",
    "training",
]
