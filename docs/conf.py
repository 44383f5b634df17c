"""Settings of the documentation site: `make docs` builds it into build/docs, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

project = "Warmstart"
author = "the Warmstart authors"
copyright = "the Warmstart authors, Apache-2.0"
extensions = ["myst_parser", "config_reference", "api_reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures: names of other libraries have no page here

myst_enable_extensions = ["fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # a type that has the name of several classes
highlight_language = "none"
add_module_names = False
python_maximum_signature_line_length = 88

html_theme = "pydata_sphinx_theme"
html_title = "Warmstart"
html_static_path = ["static"]
html_css_files = ["warmstart.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "logo": {"text": "Warmstart"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_with_keys": False,
    "search_as_you_type": False,
}
html_sidebars = {"index": [], "get_started": [], "recipes": [], "lab": [], "limits": []}
