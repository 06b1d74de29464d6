"""Tidy tables of what the tools have stored."""

from unmix.get._proportions import proportions

__all__ = ["proportions"]
