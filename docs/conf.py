"""Sphinx configuration; `make docs` builds with warnings as errors."""

project = "icre_jax"
author = "the icre_jax authors"
copyright = "2026, the icre_jax authors"
extensions = ["myst_nb"]
html_theme = "furo"
exclude_patterns = ["_build"]
nb_execution_mode = "off"
myst_heading_anchors = 3
