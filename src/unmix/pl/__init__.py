"""Pictures of what the tools have stored."""

from unmix.pl._proportions import proportions

__all__ = ["proportions"]
