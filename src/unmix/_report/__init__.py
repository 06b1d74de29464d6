"""One page that shows what the tools have found in a tissue."""

from unmix._report.write import report

__all__ = ["report"]
