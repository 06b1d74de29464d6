"""The drawings of a page: Bokeh's figures, without data where the page itself fills them in.

Bokeh, because its discs have a size in the units of the tissue, and because it draws with WebGL where there is one and
without where there is none.
"""

from typing import Any

import numpy as np

from unmix._adata.colours import COLOURS, MISSING
from unmix._report.content import Curve

DASHES = ("solid", "dashed", "dotdash", "dotted")
MARKERS = ("circle", "square", "triangle", "diamond")
MANY = 20_000
"""Spots beyond which they are drawn as squares, which without WebGL takes half the time."""
INK = "#33373d"
FONT = "system-ui, sans-serif"
EVENTS = {"mousemove", "mouseleave", "tap"}


def scripts() -> list[str]:
    """Return the library's own scripts."""
    from bokeh.util.paths import bokehjs_path

    folder = bokehjs_path() / "js"
    return [(folder / f"{name}.min.js").read_text(encoding="utf-8") for name in ("bokeh", "bokeh-gl")]


def palettes() -> dict[str, list[str]]:
    """Return the colours of values from 0 up, and of values on both sides of 0: both for all kinds of colour vision."""
    from bokeh.palettes import Viridis256, interp_palette

    blue_red = ("#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b")
    return {"sequential": list(Viridis256), "diverging": list(interp_palette(blue_red, 255))}


def map_figure(n_obs: int) -> dict[str, Any]:
    """Return an empty map: images, names of sections, spots coloured by `value`, rings around those pointed at and chosen."""
    from bokeh.models import ColumnDataSource, LinearColorMapper

    plot = _figure(
        name="map", sizing_mode="stretch_both", tools="pan,wheel_zoom", active_scroll="wheel_zoom", toolbar_location=None,
        x_range=(0, 1), y_range=(0, 1), output_backend="webgl", min_border=0, lod_threshold=20_000, lod_factor=4,
    )  # fmt: skip
    plot.axis.visible = plot.grid.visible = False
    images = ColumnDataSource({"uri": [], "x": [], "y": [], "w": [], "h": []}, name="images")
    plot.image_url(url="uri", x="x", y="y", w="w", h="h", anchor="top_left", source=images, name="picture")
    labels = ColumnDataSource({"x": [], "y": [], "name": []}, name="labels")
    plot.text(
        "x", "y", "name", text_font={"value": FONT}, text_font_size="13px", text_color=INK, text_align="center",
        text_baseline="middle", source=labels,
    )  # fmt: skip
    spots = ColumnDataSource({"x": [], "y": [], "value": []}, name="spots")
    mapper = LinearColorMapper(palette=["#000000"], low=0, high=1, nan_color=MISSING, name="colours")
    colour = {"field": "value", "transform": mapper}
    style: dict[str, Any] = {"fill_color": colour, "line_color": None, "source": spots, "name": "discs"}
    if n_obs > MANY:
        plot.rect("x", "y", width=1, height=1, **style)
    else:
        plot.circle("x", "y", radius=1, **style)
    for name, width in (("pointed", 2), ("chosen", 3)):
        ring = ColumnDataSource({"x": [], "y": []}, name=name)
        around: dict[str, Any] = {"radius": 1, "fill_color": None, "source": ring, "level": "overlay"}
        plot.circle("x", "y", line_color="white", line_width=width + 3, name=f"{name} halo", **around)
        plot.circle("x", "y", line_color="#111111", line_width=width, name=f"{name} ring", **around)
    return _item(plot)


def bars_figure() -> dict[str, Any]:
    """Return empty bars: stacked pieces of every observation and, for one part, its error."""
    from bokeh.models import ColumnDataSource, FactorRange

    plot = _figure(
        name="bars", sizing_mode="stretch_both", tools="", toolbar_location=None, y_range=FactorRange(factors=[]),
        x_range=(0, 1), min_border=8,
    )  # fmt: skip
    plot.ygrid.visible = False
    plot.xaxis.name = "amounts"
    names = ("y", "left", "right", "colour", "alpha")
    pieces = ColumnDataSource({name: [] for name in names}, name="pieces")
    plot.hbar(
        y="y", left="left", right="right", height=0.82, fill_color="colour", fill_alpha="alpha", line_color="white",
        line_width=0.5, source=pieces,
    )  # fmt: skip
    errors = ColumnDataSource({"y": [], "low": [], "high": []}, name="errors")
    plot.segment("low", "y", "high", "y", line_color="#111111", line_width=1.5, source=errors)
    return _item(plot)


def curve_figure(curve: Curve) -> dict[str, Any]:
    """Return lines that differ in colour, dash and marker, with a line where the choice fell."""
    from bokeh.models import PlainText
    from bokeh.models.annotations import Legend, Span

    plot = _figure(
        sizing_mode="stretch_width", height=300, tools="", toolbar_location=None, min_border=8,
        y_axis_type="log" if curve.log else "linear", x_axis_label=curve.x_label, y_axis_label=curve.y_label,
    )  # fmt: skip
    for axis in plot.axis:
        axis.axis_label = PlainText(text=str(axis.axis_label))
    x, items = np.asarray(curve.x, dtype=float), []
    for i, (name, y) in enumerate(curve.lines.items()):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)]}
        y = np.asarray(y, dtype=float)
        drawn = [plot.line(x, y, line_width=2, line_dash=DASHES[i % len(DASHES)], **style)]
        if len(x) <= 60:
            drawn.append(plot.scatter(x, y, size=8, marker=MARKERS[i % len(MARKERS)], **style))
        items.append((name, drawn))
    if curve.mark is not None:
        plot.add_layout(Span(location=curve.mark, dimension="height", line_color=INK, line_dash="dashed", line_width=1))
    if np.allclose(x, np.rint(x)) and np.ptp(x) <= 15:
        plot.xaxis.ticker = np.unique(x).tolist()
    if len(items) > 1:
        legend = Legend(
            items=items, location="left", border_line_color=None, background_fill_color=None,
            label_text_font=FONT, margin=0,
        )  # fmt: skip
        plot.add_layout(legend, "below")
    return _item(plot)


def _figure(**options: Any) -> Any:
    """Return a figure with the page's calm look."""
    from bokeh.plotting import figure

    plot: Any = figure(**options)
    plot.toolbar.logo = None
    plot.background_fill_color = plot.border_fill_color = "#fbfbf9" if options.get("name") == "map" else "#ffffff"
    plot.outline_line_color = None
    plot.grid.grid_line_color = "#e7e6e1"
    plot.subscribed_events = EVENTS
    for axis in plot.axis:
        axis.axis_line_color = axis.major_tick_line_color = "#a9a9a3"
        axis.minor_tick_line_color = None
        axis.major_tick_in = 0
        axis.major_label_text_color = axis.axis_label_text_color = INK
        axis.major_label_text_font = axis.axis_label_text_font = FONT
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "12px"
        axis.axis_label_text_font_style = "normal"
    return plot


def _item(plot: Any) -> dict[str, Any]:
    from bokeh.embed import json_item

    return dict(json_item(plot))
