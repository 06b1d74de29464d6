"""Pictures of what the tools have stored."""

from unmix.pl._archetypes import (
    archetype_markers,
    archetype_selection,
    archetype_simplex,
    archetype_tree,
    archetypes,
    signature_matching,
)
from unmix.pl._proportions import proportions

__all__ = [
    "archetype_markers",
    "archetype_selection",
    "archetype_simplex",
    "archetype_tree",
    "archetypes",
    "proportions",
    "signature_matching",
]
