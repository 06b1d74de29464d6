"""Formulas as MathML, which browsers draw themselves: pages need no network and no script."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

TILDE = ("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
ALIGNED = re.compile(r'columnalign="(\w+)"')
FUNCTION = re.compile(r"(<mi>log</mi>)(?!<mo[^>]*>&#x00028;)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mathml(text: str, display: str) -> str:
    """Return a formula in LaTeX as MathML, with relations spaced as relations and a space after a bare logarithm."""
    if "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    found = convert(text.replace("{aligned}", "{align*}"), display=display)
    found = ALIGNED.sub(r'style="text-align: \1"', found.replace(*TILDE))  # what browsers know of MathML
    return FUNCTION.sub(r'\1<mspace width="0.17em"/>', found)


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode
