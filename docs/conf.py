"""How the documentation is built: `make docs`."""

import shutil
import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

# Sphinx knows files below this folder only; the tutorials are rendered with the outputs that are stored in them.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
shutil.copytree(
    HERE.parent / "tutorials",
    HERE / "tutorials",
    ignore=lambda _, names: [n for n in names if not n.endswith(".ipynb")],
)

project = "unmix"
author = "The unmix developers"
version = release = installed("unmix")
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "api_pages",
    "mathml",
]
exclude_patterns = ["_build", "images", "generated/*.md", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "code"
nitpicky = True
nitpick_ignore_regex = [
    # The types of other libraries: the build fetches nothing, so that it works offline.
    ("py:.*", r"(anndata|collections|matplotlib|numpy|np|pandas|pd|pathlib|scipy|squidpy|torch|typing)\..*"),
    (
        "py:class",
        r"(AnnData|Axes|DataFrame|Generator|Series|ndarray|Any|Method|Absolute|Literal|Mapping|Sequence|Path|Table|optional|T|P\..*)",
    ),
    ("py:mod", r"logging|unmix\.core\..*"),  # the second is no part of the API; it is read in the source
]

autosummary_generate = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_custom_sections = ["Returns", "Yields"]  # prose and lists of slots, not one type a line
napoleon_use_admonition_for_references = False

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True

html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = f"unmix {release}"
html_static_path = ["_static"]
html_css_files = ["unmix.css"]
html_theme_options = {
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
}
html_copy_source = False
