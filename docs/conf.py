"""Sphinx configuration; `make docs` builds with warnings as errors. What is built loads nothing from elsewhere."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # autodoc imports the package that stands beside these pages

project = "icre_jax"
author = "the icre_jax authors"
copyright = "2026, the icre_jax authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "icre_jax"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"

default_role = "code"  # single backticks of a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "setup, parent, name, dtype"}
napoleon_include_init_with_doc = True
napoleon_use_param = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_maximum_signature_line_length = 88


def _to_mathml(formula: str, *, as_block: bool = False) -> str:
    # docutils knows \operatorname without the star, which only puts an index below the word.
    return tex2mathml(formula.replace(r"\operatorname*", r"\operatorname"), as_block=as_block)


def _inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(_to_mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_to_mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def _without_flax(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: Any
) -> Any:
    """A module's own attributes alone, not the two that Flax gives to each."""
    return signature and re.sub(r", parent: .*, name: str \| None = None\)$", ")", signature), returns


def _link_code(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """A link to a file of the package opens its highlighted source where the API page documents it."""
    documented = {name for name, entry in getattr(app.env, "_viewcode_modules", {}).items() if entry}
    for node in list(doctree.findall(addnodes.download_reference)):
        path = (Path(app.srcdir, docname).parent / node["reftarget"]).resolve()
        if path.is_relative_to(ROOT) and path.suffix == ".py":
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if module in documented:
                target = app.builder.get_relative_uri(docname, f"_modules/{module.replace('.', '/')}")
                node.replace_self(nodes.reference("", "", *node.children, internal=True, refuri=target))


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which browsers draw themselves; links into the code."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("autodoc-process-signature", _without_flax)
    app.connect("doctree-resolved", _link_code)
