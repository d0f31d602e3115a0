"""Sphinx settings. The build reads nothing from the network."""

from __future__ import annotations

import re
from importlib.metadata import version as distribution_version
from typing import Any

project = "ppl_lvm"
author = "The ppl_lvm contributors"
release = distribution_version("ppl-lvm")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Public members in the order of the source, signatures as written.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"ppl_lvm {release}"
exclude_patterns = ["_build"]


def absolute_values(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write |x| for an absolute value, where reStructuredText sees a substitution."""
    lines[:] = [re.sub(r"\|(\w+)\|", r"\\|\1\\|", line) for line in lines]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", absolute_values)
