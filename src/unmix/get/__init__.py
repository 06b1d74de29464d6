"""Tidy tables of what the tools have stored."""

from unmix.get._archetypes import archetypes, markers
from unmix.get._as_anndata import as_anndata
from unmix.get._enrichment import enrichment
from unmix.get._joint import joint_loadings
from unmix.get._loadings import loadings
from unmix.get._proportions import proportions
from unmix.get._results import results

__all__ = ["archetypes", "as_anndata", "enrichment", "joint_loadings", "loadings", "markers", "proportions", "results"]
