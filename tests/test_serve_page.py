"""The page in a browser: rendered people, the network in the package, headless Chromium.

Needs `icre_jax[browser]` and Chromium (Debian: apt-get install chromium). The images of the page are left in the folder
that ICRE_JAX_SCREENSHOTS names, or in the test's own.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from icre_jax import rendering
from icre_jax.retrieval.calibration import Calibration
from tests.conftest import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: apt-get install chromium)"),
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="playwright is not here: pip install 'icre_jax[browser]'"
    ),
]
# As docs/search_gallery.md renders them; the network was trained on seed 0.
PEOPLE = rendering.SyntheticSettings(
    seed=1, difficulty="easy", num_train_ids=20, num_val_ids=60, num_test_ids=30, num_images_per_camera=2,
    image_size=(128, 64),
)  # fmt: skip
HTML = "<img src=x onerror=alert(1)>"
TOKEN = "a-token-that-is-long-enough"
SIZES = {"wide": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index, a calibration, and infrared images of somebody who is found, and of a stranger."""
    folder = tmp_path_factory.mktemp("made")
    rendering.write_tree("sysu_mm01", folder / "people", PEOPLE)
    tree = ["--images", str(folder / "people"), "--dataset", "sysu_mm01", "--network", "synthetic"]

    def call(name, *flags):
        assert importlib.import_module(f"icre_jax.{name}").main([str(flag) for flag in flags]) == 0

    call("index", "--index", folder / "gallery", "--modality", "visible", *tree)
    call("calibrate", "--out", folder / "calibration.json", "--split", "val", "--fpir", "0.1", *tree)
    # Somebody whose name is HTML joins the gallery.
    own = folder / "own" / HTML
    own.mkdir(parents=True)
    shutil.copy(next((folder / "people" / "cam1" / persons(folder, "train")[0]).glob("*.jpg")), own)
    call("index", "--index", folder / "gallery", "--modality", "visible", "--images", folder / "own", "--add")
    return folder


def persons(folder: Path, part: str) -> list[str]:
    return [f"{int(pid):04d}" for pid in (folder / "people" / "exp" / f"{part}_id.txt").read_text().split(",")]


@pytest.fixture(scope="module")
def images(made, tmp_path_factory):
    """By the command for it: an infrared image whose person comes first and above the threshold, and a stranger's."""
    out = tmp_path_factory.mktemp("found") / "found.json"
    asked = [
        next((made / "people" / "cam6" / person).glob("*.jpg"))
        for person in (*persons(made, "test"), *persons(made, "train")[1:])
    ]
    flags = ("--index", made / "gallery", "--modality", "infrared", "--json", out, "--images", *asked)
    more = ("--calibration", made / "calibration.json")
    assert importlib.import_module("icre_jax.search").main([str(flag) for flag in (*flags, *more)]) == 0
    found, stranger = [], []
    for search in json.loads(out.read_text())["searches"]:
        image = Path(search["image"])
        if image.parent.name in persons(made, "train"):
            stranger += [image] if search["answer"] == "not in the gallery" else []
        elif search["candidates"] and search["candidates"][0]["person"] == str(int(image.parent.name)):
            found.append(image)
    assert len(stranger) >= 15  # of 19
    return {"there": found[0], "stranger": stranger[0]}


@pytest.fixture(scope="module")
def address(made):
    """Of the command, as a user starts it."""
    (made / "token").write_text(TOKEN)
    flags = ("--index", made / "gallery", "--calibration", made / "calibration.json", "--token_file", made / "token")
    command = [sys.executable, "-m", "icre_jax.serve", "--port", "0", *map(str, flags)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            yield re.search(r"Open (http://\S+) in a browser", lines[1])[1]
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    named = os.environ.get("ICRE_JAX_SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


@contextlib.contextmanager
def opened(browser, address, size="wide", scheme="light"):
    """The page after its token was typed; it must have complained of nothing, and asked nobody else."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_label("Token of this server").fill(TOKEN)
    page.keyboard.press("Enter")
    page.locator("#gallery-facts", has_text="images of").wait_for()
    yield page
    assert [words for words in said if "responded with a status of" not in words] == []
    assert {url for url in asked if not url.startswith(address)} == set()
    assert context.cookies() == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    context.close()


def settle(page) -> None:
    """Wait for the answer and for all small images."""
    page.wait_for_selector("#answer[aria-busy=false]")
    page.wait_for_load_state("networkidle")


def test_the_right_person_and_a_stranger(made, images, address, browser, pictures):
    known = Calibration.read(made / "calibration.json")
    for size in SIZES:
        for scheme in ("light", "dark"):
            with opened(browser, address, size, scheme) as page:
                assert page.locator("input[value=infrared]").is_checked()  # the calibration's
                for name, image in images.items():
                    page.set_input_files("#file", image)
                    page.get_by_role("button", name="Search", exact=True).click()
                    words = "Candidates, not identifications" if name == "there" else "Not in the gallery"
                    page.get_by_role("heading", name=words).wait_for()
                    settle(page)
                    page.screenshot(path=pictures / f"{name}_{size}_{scheme}.png", full_page=True)
                    assert page.locator("#asked-words").inner_text() == f"{image.name}, infrared"
                    assert f"Threshold {known.threshold:.4f}" in page.locator("#rates").inner_text()
                    if name == "there":
                        first = page.locator("#people > li").first.inner_text()
                        assert f"1. Person {int(image.parent.name)}\n" in first
                    else:
                        assert page.locator("#people > li").count() == 0
                        assert page.locator("#people-below > li").count() == 10
                        assert not page.locator("#people-below").is_visible()
                    # Nothing sticks out of a narrow screen.
                    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_heat_comes_and_goes_with_a_click(address, browser, images, pictures):
    lit = ".shot[aria-pressed=true]"
    pixels = "canvas => canvas.toDataURL()"
    with opened(browser, address) as page:
        page.set_input_files("#file", images["there"])
        page.get_by_role("button", name="Search", exact=True).click()
        page.get_by_role("heading", name="Candidates, not identifications").wait_for()
        settle(page)
        asked, first = page.locator("#asked-image"), page.locator(".shot canvas").first
        before = asked.evaluate(pixels), first.evaluate(pixels)
        page.locator(".shot").first.click()
        page.wait_for_selector(lit)
        page.screenshot(path=pictures / "heat.png")
        during = asked.evaluate(pixels), first.evaluate(pixels)
        assert during[0] != before[0]
        assert during[1] != before[1]
        page.locator(".shot").first.click()
        page.wait_for_selector(lit, state="detached")
        assert (asked.evaluate(pixels), first.evaluate(pixels)) == before
        assert not page.locator("#heat-words").is_visible()


def test_by_keyboard_alone_and_from_the_gallery(address, browser, images, pictures):
    with opened(browser, address, "phone", "dark") as page:
        page.locator("#file").focus()
        page.set_input_files("#file", images["there"])  # the system's own dialogue
        for _ in range(2):  # the modality, the button
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Candidates, not identifications").wait_for()
        assert page.evaluate("document.activeElement.id") == "verdict"
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#tiles button")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=pictures / "gallery_phone_dark.png", full_page=True)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="The most similar people").wait_for()
        assert "this image is of the gallery" in page.locator("#verdict-words").inner_text()
        assert page.locator("#asked-words").inner_text().endswith(", of the gallery")
        settle(page)
        page.screenshot(path=pictures / "from_gallery_phone_dark.png")


def test_what_is_wrong_is_said_and_html_is_text(address, browser, images, tmp_path):
    from playwright.sync_api import expect

    with opened(browser, address) as page:
        page.get_by_role("button", name="Search", exact=True).click()
        assert page.get_by_role("alert").inner_text() == "Choose an image first."
        (tmp_path / "large.png").write_bytes(bytes(9 * 2**20))
        page.set_input_files("#file", tmp_path / "large.png")
        page.get_by_role("button", name="Search", exact=True).click()
        assert page.get_by_role("alert").inner_text() == "An image may have 8 MiB at most."
        page.locator("summary").first.click()
        words = page.locator("#page-words")
        expect(words).not_to_be_empty()
        while not re.fullmatch(r"\d+ to (\d+) of \1", said := words.inner_text()):
            page.locator("#after").click()
            expect(words).not_to_have_text(said)
        tile = page.locator("#tiles button", has_text=HTML)
        assert tile.inner_text().startswith(f"Person {HTML}")
        tile.click()
        page.get_by_role("heading", name="The most similar people").wait_for()
        assert page.locator("img").count() == 0
        # Dropped, with a name that is HTML; and no image.
        page.evaluate(
            """name => {
              const moved = new DataTransfer();
              moved.items.add(new File(['no image'], name, {type: 'image/png'}));
              const drop = new DragEvent('drop', {dataTransfer: moved, bubbles: true, cancelable: true});
              document.getElementById('drop').dispatchEvent(drop);
            }""",
            HTML,
        )
        assert page.locator("#file-words").inner_text() == HTML


def test_a_broken_image_is_refused_in_words(address, browser, tmp_path):
    with opened(browser, address) as page:
        (tmp_path / "broken.png").write_bytes(b"no image")
        page.set_input_files("#file", tmp_path / "broken.png")
        with page.expect_response(re.compile("/api/search")) as answer:
            page.get_by_role("button", name="Search", exact=True).click()
        assert answer.value.status == 422
        page.get_by_text("This image cannot be used: not readable").wait_for()
