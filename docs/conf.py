"""Sphinx configuration; `make docs` builds with warnings as errors."""

project = "icre_jax"
author = "the icre_jax authors"
copyright = "2026, the icre_jax authors"
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath"]
html_theme = "furo"
exclude_patterns = ["_build"]
nb_execution_mode = "off"
myst_heading_anchors = 3
