"""What a report holds of one result, before it is turned into a page."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table under a heading; the index is not shown."""

    title: str
    note: str
    frame: pd.DataFrame
    opened: bool = True
    """Whether it is shown at once, or when the reader opens it."""


@dataclass(frozen=True)
class Curve:
    """Lines over one axis; `mark` is what was chosen there."""

    title: str
    note: str
    x_label: str
    y_label: str
    x: Any
    lines: dict[str, Any]
    mark: float | None = None
    log: bool = False
    """Whether the vertical axis is logarithmic."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn while it is still known which result it is of."""
        sizes = {np.asarray(values, dtype=float).shape for values in (self.x, *self.lines.values())}
        if len(sizes) > 1:
            msg = f"the lines of {self.title!r} have the shapes {sorted(sizes)}."
            raise ValueError(msg)


@dataclass(frozen=True)
class Finding:
    """A sentence that the reader should know, or be warned by."""

    level: Literal["warning", "note"]
    text: str


@dataclass(frozen=True)
class Result:
    """What one tool has found in every observation, and what belongs to it."""

    key: str
    tool: str
    title: str
    part: str
    """What a column of the table is: a cell type, an archetype, a program."""
    unit: str
    quantities: dict[str, pd.DataFrame]
    """Tables of the same shape, observations x parts, by name; the first is the result, `"standard error"` its error."""
    colours: list[str]
    composition: bool = False
    """Whether the rows sum to 1."""
    columns: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What else is known of every observation."""
    tables: list[Table] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What the tool chose or measured."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the tool was asked for, with the version."""

    @property
    def table(self) -> pd.DataFrame:
        """The result, observations x parts."""
        return next(iter(self.quantities.values()))
