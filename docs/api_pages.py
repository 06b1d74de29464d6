"""What is made besides docstrings: a table of all slots, pictures of the examples, the shell's commands."""

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

ENTRY = re.compile(r"^(`.+?)(?: : (.+))?$")
PAGES = {"denoise": "autoencoder", "zinb_ae": "autoencoder", "starfysh_archetypes": "archetypes"}
"""Pages of the mathematics that have another name than their tool."""
SECTION = re.compile(r"^Returns\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", re.M | re.S)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the table before the sources are read; add pictures while docstrings are."""
    app.connect("builder-inited", write_slots)
    app.connect("builder-inited", write_commands)
    app.connect("source-read", list_other_pages)
    app.connect("autodoc-process-docstring", add_picture, priority=100)
    app.connect("autodoc-process-docstring", add_mathematics, priority=900)
    app.connect("object-description-transform", tidy_types, priority=900)
    return {"parallel_read_safe": False}


def list_other_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the pages that the contents do not name at `OTHER_PAGES`: a new page appears by being there."""
    if docname == "index":
        named = {"index", *re.findall(r"^[\w-]+$", source[0], re.M)}
        pages = {page.stem for page in Path(app.srcdir).glob("*.md") if not page.stem.endswith("protocol")}
        source[0] = source[0].replace("OTHER_PAGES", "\n".join(sorted(pages - named)))


def tidy_types(app: Sphinx, domain: str, objtype: str, content: nodes.Element) -> None:
    """Leave out the return type, since what is returned and written is said in words; name other types shortly."""
    for field in list(content.findall(nodes.field)):
        if field[0].astext() == "rtype":
            field.parent.remove(field)
        elif field[0].astext().startswith("type "):
            for text in list(field[1].findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(re.sub(r"~?\b(?:\w+\.)+(\w+)", r"\1", text)))


def slots_of(docstring: str) -> list[tuple[str, str, str]]:
    """Return the slots that the docstring of a tool names: where, of what kind, and what is in them."""
    found = SECTION.search(inspect.cleandoc(docstring) + "\n")
    rows: list[list[Any]] = []
    for line in found.group(1).splitlines() if found else []:
        entry = ENTRY.match(line)
        if entry and re.match(r"`(obs|var|obsm|varm|obsp|uns|layers)\[", line):
            rows.append([entry.group(1), entry.group(2) or "", []])
        elif rows and line.startswith("    "):
            rows[-1][2].append(line.strip())
        elif rows and line.strip():
            break
    return [(where, kind, " ".join(text)) for where, kind, text in rows]


def write_slots(app: Sphinx) -> None:
    """Write `generated/slots.md`: every slot that a tool writes, from the docstrings."""
    import unmix

    lines = ["| tool | slot | kind | what it holds |", "|---|---|---|---|"]
    for part in (unmix.pp, unmix.tl):
        for name in part.__all__:
            link = f"{{py:func}}`{part.__name__.removeprefix('unmix.')}.{name} <{part.__name__}.{name}>`"
            for where, kind, text in slots_of(getattr(part, name).__doc__ or ""):
                cells = [link, where, kind, re.sub(r":(func|mod|data):`", r"{py:\1}`", text)]
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    target = Path(app.srcdir, "generated", "slots.md")
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n")


def write_commands(app: Sphinx) -> None:
    """Write `generated/commands.md`: the help of every subcommand."""
    from unmix.cli._app import app as command

    text = command.generate_docs(output_format="markdown", usage_name="unmix")
    found = re.sub(r"^## ", "### ", text[text.index("\n## unmix ") :], flags=re.M)
    found = re.sub(r"^(unmix [\w-]+) -m \S+", r"\1", found, flags=re.M)  # how this build was called
    target = Path(app.srcdir, "generated", "commands.md")
    target.parent.mkdir(exist_ok=True)
    target.write_text(found.lstrip())


def add_mathematics(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Point from a tool to the page of its mathematics."""
    part, _, tool = name.removeprefix("unmix.").partition(".")
    if part in ("pp", "tl") and tool:
        lines += ["", f".. seealso:: The mathematics: :doc:`/math/{PAGES.get(tool, tool)}`", ""]


def add_picture(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Run the example of a plotting function and show what it drew below it."""
    if not name.startswith("unmix.pl.") or what != "function":
        return
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    plt.close("all")
    namespace: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples("\n".join(lines)):
        exec(compile(example.source, name, "exec"), namespace)
    for number in plt.get_fignums():
        picture = Path(app.srcdir, "generated", f"{name}_{number}.png")
        plt.figure(number).savefig(picture, dpi=90, bbox_inches="tight")
        lines += ["", f".. image:: /generated/{picture.name}", f"   :alt: what the example of {name} draws", ""]
    plt.close("all")
