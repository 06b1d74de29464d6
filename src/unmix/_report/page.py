"""From what is to be shown to one HTML page that needs nothing else."""

import base64
import datetime
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix import __version__
from unmix._adata.colours import MISSING, own_colour, palette
from unmix._report import figures
from unmix._report.content import Result, Table
from unmix._report.packing import pack_array, pack_column, pack_texts, script_json
from unmix._report.place import Place

MODULES = ("data", "state", "map", "bars", "panel", "table", "sections", "main")
"""Scripts of the page, in the order in which they are needed."""


def render(adata: AnnData, title: str, place: Place | None, results: list[Result], extra: pd.DataFrame) -> str:
    """Return the page.

    Its content security policy lets only the scripts run whose digests it names, and fetches nothing. `unsafe-eval` is for
    Bokeh's WebGL, which compiles its drawing code; nothing of the data reaches it.
    """
    import jinja2
    from markupsafe import Markup

    folder = files("unmix._report") / "page"
    library, own = figures.scripts(), _own_script(folder)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in (*library, own)],
        hashes=[_digest(text) for text in (*library, own)],
        data=Markup(script_json(payload(adata, title, place, results, extra))),
    )


def payload(
    adata: AnnData, title: str, place: Place | None, results: list[Result], extra: pd.DataFrame
) -> dict[str, Any]:
    """Return everything that the page shows, as JSON holds it."""
    return {
        "title": title,
        "version": __version__,
        "written": datetime.datetime.now().astimezone().date().isoformat(),
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
        "names": pack_texts(adata.obs_names),
        "place": None if place is None else packed_place(place),
        "extra": packed_columns(extra, adata),
        "palettes": figures.palettes(),
        "missing": MISSING,
        "map": None if place is None else figures.map_figure(adata.n_obs),
        "bars": figures.bars_figure(),
        "results": [packed_result(result) for result in results],
    }


def packed_place(place: Place) -> dict[str, Any]:
    """Return coordinates, images and names of sections as JSON holds them."""
    return {
        "basis": place.basis,
        "xy": pack_array(place.xy),
        "diameter": place.diameter,
        "down": place.upside_down,
        "images": place.images,
        "labels": place.labels,
    }


def packed_result(result: Result) -> dict[str, Any]:
    """Return one result as JSON holds it."""
    return {
        "key": result.key,
        "tool": result.tool,
        "title": result.title,
        "part": result.part,
        "unit": result.unit,
        "composition": result.composition,
        "signed": bool((result.table.to_numpy() < 0).any()),
        "parts": [str(name) for name in result.table.columns],
        "colours": list(result.colours),
        "quantities": [
            {"name": name, "values": pack_array(table.to_numpy())} for name, table in result.quantities.items()
        ],
        "columns": packed_columns(result.columns, parts=dict(zip(map(str, result.table), result.colours, strict=True))),
        "tables": [packed_table(table) for table in result.tables],
        "curves": [{"title": c.title, "note": c.note, "figure": figures.curve_figure(c)} for c in result.curves],
        "findings": [
            {"level": f.level, "text": f.text} for f in sorted(result.findings, key=lambda f: f.level == "note")
        ],
        "facts": plain_items(result.facts),
        "parameters": plain_items(result.parameters),
    }


def packed_columns(
    frame: pd.DataFrame, adata: AnnData | None = None, parts: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the columns of a table as JSON holds them, categories with colours.

    These are those that `adata` has for the column, or, where categories are `parts` of a result, those of the parts.
    """
    packed, parts = [], parts or {}
    for name in frame.columns:
        column = {"name": str(name), **pack_column(frame[name])}
        if column["kind"] == "category":
            after = len(parts) if parts.keys() & set(column["names"]) else 0
            own = [own_colour(after + i) for i in range(len(column["names"]))]
            found = own if adata is None else palette(adata, str(name), column["names"])
            column["colours"] = [parts.get(part, colour) for part, colour in zip(column["names"], found, strict=True)]
        packed.append(column)
    return packed


def packed_table(table: Table) -> dict[str, Any]:
    """Return a table with its heading as JSON holds it."""
    return {"title": table.title, "note": table.note, "opened": table.opened, "columns": packed_columns(table.frame)}


def plain_items(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Return names and values as text, one pair a line, dicts one level in.

    Examples
    --------
    >>> plain_items({"method": "auto", "chosen": {"unknown": None}, "rate": 0.5})
    [['method', 'auto'], ['chosen: unknown', 'none'], ['rate', '0.5']]
    """
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping) and len(value):
            lines += plain_items(value, f"{prefix}{name}: ")
        else:
            lines.append([f"{prefix}{name}", _plain(value)])
    return lines


def _plain(value: Any) -> str:
    """Write a value as a person would."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, list | tuple | np.ndarray | pd.Series) and np.ndim(value) == 1:
        shown = ", ".join(_plain(item) for item in list(value)[:10])
        return shown + (f", ... ({len(value)} in all)" if len(value) > 10 else "") if len(value) else "none"
    if isinstance(value, np.ndarray | pd.DataFrame):
        return " x ".join(map(str, value.shape)) + " values"
    return str(value)


def _own_script(folder: Any) -> str:
    """Return the page's own modules as one script with names of its own."""
    parts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in MODULES]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();\n"


def _digest(script: str) -> str:
    """Return what a content security policy knows a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
