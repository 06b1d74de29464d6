"""Tidy tables of what the tools have stored."""

from unmix.get._archetypes import archetypes, markers
from unmix.get._proportions import proportions

__all__ = ["archetypes", "markers", "proportions"]
