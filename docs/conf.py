"""Settings of Sphinx for these pages; `make docs` builds them."""

from __future__ import annotations

import ecg_shock

project = "ecg_shock"
author = "The ecg_shock developers"
copyright = "2026, the ecg_shock developers"
version = release = ecg_shock.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["build"]

# Types stand in the docstrings. A second copy of them in every signature makes it hard to read.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}  # pydantic's own
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# `name` in a docstring becomes a link where the reference has that name. Sphinx warns (-n) of a name of ours that it
# has not; other names in backticks are parameters, files and what belongs to other libraries.
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", r"(?!ecg_shock\.).*")]

myst_heading_anchors = 3
highlight_language = "none"  # a block without a language is text

html_theme = "furo"
html_title = "ecg_shock"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["pages.css"]
