"""The pages are built as `make docs` builds them, warnings being errors, and load nothing from elsewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("sphinx") is None, reason="sphinx is not here: pip install 'icre_jax[docs]'"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("html")
    process = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


def test_every_page_is_built(built):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (built / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page
    assert "Every field of a config" in (built / "reference" / "settings.html").read_text()


def test_a_page_needs_nothing_from_elsewhere(built):
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]* src=\"(?:https?:)?//", text), page
        assert not re.findall(r"<link[^>]* href=\"(?:https?:)?//", text), page


def test_formulas_are_drawn_by_the_browser(built):
    text = (built / "method.html").read_text(encoding="utf-8")
    formulas = re.findall(r"<math.*?</math>", text, re.DOTALL)
    assert len(formulas) > 100
    assert not [formula for formula in formulas if "\\" in formula or "<mo>*</mo>" in formula]
    assert "$" not in re.sub(r"<(script|style|pre|code).*?</\1>", "", text, flags=re.DOTALL)


def test_links_into_the_code_open_the_source(built):
    text = (built / "method.html").read_text(encoding="utf-8")
    sources = set(re.findall(r'href="(_modules/icre_jax/\w+/\w+\.html)"', text))
    assert {f"_modules/icre_jax/models/{name}.html" for name in ("mpfr", "sdce", "gate", "head")} <= sources
    assert all((built / source).is_file() for source in sources)
    assert 'href="_downloads' not in text
