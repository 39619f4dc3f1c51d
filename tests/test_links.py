"""Every relative link of the pages leads to a file and a heading that are there, and the landing page to every page."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# What somebody asks who has just come, and words of the page that answers it.
QUESTIONS = {
    "data_sets/llcm.md": "--config configs/llcm.py --workdir",
    "own_pictures.md": "--make_manifest",
    "search_gallery.md": "icre_jax.search --index",
    "matching_the_paper.md": "`loss.icg_form`",
    "how_to/tpu_slice.md": "the same command continues",
}


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def links_of(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^()\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    return [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]


def anchors_of(page: Path) -> set[str]:
    """As GitHub and MyST make them of headings; of a page that includes another, the other's as well."""
    text = page.read_text(encoding="utf-8")
    found = set()
    for included in re.findall(r"^```\{include\} (\S+)$", text, re.MULTILINE):
        found |= anchors_of(page.parent / included)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found.add(next(name for number in range(9) if (name := f"{slug}-{number}" if number else slug) not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.relative_to(ROOT)} links {link}"
        assert target.is_relative_to(ROOT), f"{page.relative_to(ROOT)} links {link}, outside of the repository"
        if anchor:
            there = anchors_of(target)
            assert anchor in there, f"{page.relative_to(ROOT)} links {link}; there are {there}"


def test_anchors_by_hand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b.c` (d, e)\n\n## Twice\n\n```\n# no heading\n```\n\n## Twice\n\n### [l](x.md): m-n_o\n")
    assert anchors_of(page) == {"a-bc-d-e", "twice", "twice-1", "l-m-n_o"}


def test_every_page_is_in_the_navigation():
    docs = ROOT / "docs"
    named = set()
    for index in (docs / "index.md", docs / "how_to" / "index.md"):
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", index.read_text(), re.MULTILINE | re.DOTALL):
            lines = [line for line in tree.splitlines() if line and not line.startswith(":")]
            named |= {(index.parent / f"{line}.md").resolve() for line in lines}
    assert named | {docs / "index.md"} == set(docs.rglob("*.md"))


def test_questions_of_who_has_just_come_are_answered_one_click_away():
    links = links_of(ROOT / "docs" / "index.md")
    for page, words in QUESTIONS.items():
        assert page in links
        assert words in (ROOT / "docs" / page).read_text(encoding="utf-8")
