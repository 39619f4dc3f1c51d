"""Attacks on the page's server, which runs in a process of its own; docs/serve.md lists what it promises.

Those by images, and by many, slow and broken connections, are in test_serve_images.py and test_serve_connections.py.
"""

import asyncio
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from starlette.responses import PlainTextResponse

from icre_jax.retrieval.index import GalleryIndex
from icre_jax.serving.guard import HEADERS, Guard
from icre_jax.sums import seal, unseal
from tests.conftest import ROOT
from tests.page_server import (
    COLOURS,
    FORBIDDEN,
    RED,
    SEARCH,
    SECRET,
    attacked,
    check_that_nothing_is_kept,
    head,
    image_bytes,
    send,
    status_of,
    wait_for,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with attacked(tmp_path_factory.mktemp("served")) as started:
        yield started


def test_every_answer_carries_the_same_orders_and_no_cookie(server):
    for method, path in (
        ("GET", "/"), ("GET", "/page.js"), ("GET", "/api/about"), ("GET", "/nothing"), ("PUT", "/"), ("POST", SEARCH),
        ("POST", "/api/search"), ("GET", "/api/gallery/x/1.jpg"),
        ("POST", "/api/explain/x/1?modality=infrared"), ("POST", "/api/explain/x/1?asked=0"),
    ):  # fmt: skip
        _, headers, _ = server.ask(method, path)
        assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items(), path
        assert not {"set-cookie", "server", "location", "access-control-allow-origin"} & headers.keys()
    policy = HEADERS["Content-Security-Policy"]
    assert set(re.findall(r"'[a-z-]+'|\w+:|\*", policy)) == {"'none'", "'self'"}


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/../../../../etc/passwd", "/%2e%2e/%2e%2e/secret.txt", "/..%2f..%2fsecret.txt",
        "/page.css/../../secret.txt", "/....//secret.txt", "/%00", "/page.css%00.txt", "//etc/passwd", "/\\..\\secret",
        "/api/gallery/STATE/../../secret.txt.jpg", "/api/gallery/STATE/%2e%2e%2fsecret.txt.jpg",
        "/api/gallery/STATE//etc/passwd.jpg", "/api/gallery/STATE/-1.jpg", "/api/gallery/STATE/1.5.jpg",
        "/api/gallery/STATE/999999999999.jpg", "/api/gallery/STATE/9999.jpg", "/api/gallery/STATE/%D9%A3.jpg",
        f"/api/gallery/STATE/{'1' * 5000}.jpg", "/api/gallery/0000/0.jpg", "/api/gallery?start=-1",
        "/api/gallery?start=x", "/api/gallery?start=" + "9" * 5000, "/page.html", "/static/page.html", "/index.json",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(server, path):
    path = path.replace("STATE", server.get("/api/gallery")["state"])
    answer = send(server, head(path, method="GET"))
    assert status_of(answer) in (404, 410), answer[:200]
    assert b"nobody may read" not in answer
    assert b"root:" not in answer


def test_images_come_by_row_and_only_images(server):
    part = server.get("/api/gallery")
    status, headers, jpeg = server.ask("GET", f"/api/gallery/{part['state']}/0.jpg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.size == (96, 192)
        assert not image.getexif()
        assert np.abs(np.asarray(image, int)[90, 40] - COLOURS["anna"]).max() < 12
    file = server.folder / "images" / part["images"][0]["path"]
    kept = file.read_bytes()
    try:
        file.unlink()
        file.symlink_to(server.folder / "secret.txt")
        status, _, body = server.ask("GET", f"/api/gallery/{part['state']}/0.jpg")
        assert status == 410
        assert json.loads(body)["error"].startswith("The file of this gallery image cannot be read")
        assert b"nobody" not in body
    finally:
        file.unlink()
        file.write_bytes(kept)
    assert str(server.folder) not in json.dumps([part, server.get("/api/about")])


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Host: evil.example"], 421),
        (["Host: evil.example:80"], 421),
        (["Host: localhost.evil.example"], 421),
        (["Host: 127.0.0.1.evil.example"], 421),
        (["Host: localhost@evil.example"], 421),
        (["Host: localhost:80:80"], 421),
        (["Host: "], 421),
        (["Host: localhost", "Host: evil.example"], 400),
        ([], 400),
        (["Host: LOCALHOST:99"], 200),  # as through a tunnel
        (["Host: 127.0.0.1"], 200),
        (["Host: [::1]:8765"], 200),
        (["Host: localhost", "X-Forwarded-Host: evil.example"], 200),  # not looked at
        (["Host: localhost", "Origin: http://evil.example"], 403),
        (["Host: localhost", "Origin: http://localhost:3000"], 403),  # another server of this machine
        (["Host: localhost", "Origin: null"], 403),
        (["Host: localhost", "Sec-Fetch-Site: cross-site"], 403),
        (["Host: localhost", "Sec-Fetch-Site: same-site"], 403),
        (["Host: localhost:99", "Origin: http://localhost:99", "Sec-Fetch-Site: same-origin"], 200),
    ],
)
def test_only_its_own_page_may_ask(server, lines, status):
    text = "\r\n".join(["GET /api/about HTTP/1.1", *lines, "", ""])
    answer = send(server, text.encode())
    assert status_of(answer) == status, answer[:300]
    if status == 421:
        text = text.replace("/api/about", "/")
        assert status_of(send(server, text.encode())) == 421


class Page(html.parser.HTMLParser):
    """Elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def test_names_are_texts(server):
    status, headers, body = server.ask("POST", SEARCH, image_bytes((20, 250, 20)))
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)["people"][0]
    assert found["person"] == "<img src=x onerror=alert(1)>"
    assert found["images"][0]["path"] == "1<b>0.png"
    # The page is the same bytes for everybody, and its script writes texts as texts.
    page = server.ask("GET", "/")[2].decode()
    assert page == (ROOT / "icre_jax" / "serving" / "page.html").read_text()
    for tag, attributes in Page(page).elements:
        assert not {name for name in attributes if name.startswith("on")} | {"style", "srcdoc", "action"} & {
            *attributes
        }
        for name in {"src", "href"} & {*attributes}:
            assert attributes[name].startswith("/"), tag
        assert tag != "script" or attributes["src"] == "/page.js"
    script = (ROOT / "icre_jax" / "serving" / "page.js").read_text()
    written = "innerHTML outerHTML insertAdjacentHTML document.write DOMParser eval Function( import("
    stored_or_sent = "localStorage sessionStorage indexedDB cookie :// WebSocket sendBeacon"
    for word in (*written.split(), *stored_or_sent.split()):
        assert word not in script, word
    style = (ROOT / "icre_jax" / "serving" / "page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_an_error_says_nothing_of_a_user(server):
    status, _, body = server.ask("POST", SEARCH, image_bytes(FORBIDDEN))
    assert status == 500
    assert SECRET.encode() not in body
    wait_for(lambda: "RuntimeError in embed" in server.log)  # written when the answer is sent
    assert server.ask("POST", SEARCH, RED)[0] == 200


@pytest.mark.parametrize("modality", ["", "thermal", "VISIBLE", "visible' or 1", "%00"])
def test_other_modalities_are_refused(server, modality):
    status, _, body = server.ask("POST", f"/api/search?modality={modality.replace(' ', '%20')}", RED)
    assert status == 400
    assert json.loads(body)["error"] == "modality must be one of visible, infrared."


def guarded(token: str | None, **headers: str) -> int:
    """The status of a request for /api/about."""
    guard = Guard(PlainTextResponse("here"), names=["localhost"], token=token, discarded_bytes=100)
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in {"host": "localhost", **headers}.items()]
    statuses = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        statuses.append(message.get("status"))

    scope = {"type": "http", "method": "GET", "path": "/api/about", "headers": pairs, "query_string": b""}
    asyncio.run(guard(scope, receive, send))
    return statuses[0]


def test_the_token_opens_and_nothing_else_does():
    token = "a-token-of-some-length"
    assert guarded(None) == 200
    assert guarded(token, authorization=f"Bearer {token}") == 200
    for wrong in ("", "Bearer", "Bearer ", token, f"Basic {token}", f"Bearer {token[:-1]}", f"Bearer {token}x",
                  f"Bearer {token.upper()}", "Bearer é\xff", f"Bearer {token} {token}"):  # fmt: skip
        assert guarded(token, authorization=wrong) == 401, wrong
    assert guarded(token) == 401
    assert guarded(token, cookie=f"token={token}") == 401


def test_nothing_is_kept(server):
    """Last but one in this file: after all of these requests."""
    assert server.log
    check_that_nothing_is_kept(server)


def test_who_is_deleted_is_gone_from_the_page_at_once(server):
    """Last in this file: the gallery is another one afterwards."""
    before = server.get("/api/gallery")
    GalleryIndex.open(server.folder / "gallery").delete(persons=["anna"])
    status, _, body = server.ask("GET", f"/api/gallery/{before['state']}/0.jpg")
    assert (status, json.loads(body)["error"][-20:]) == (410, "Load the page again.")
    assert server.ask("POST", f"/api/search/{before['state']}/0")[0] == 410
    after = server.get("/api/gallery")
    assert (before["total"], after["total"]) == (9, 6)
    found = json.loads(server.ask("POST", SEARCH, RED)[2])
    assert "anna" not in json.dumps([after, found])
    assert found["state"] == after["state"] != before["state"]

    header = unseal(json.loads((server.folder / "gallery" / "index.json").read_text()))
    (server.folder / "gallery" / "index.json").write_text(json.dumps(seal(header | {"model_hash": "d" * 64})))
    status, headers, body = server.ask("POST", SEARCH, RED)
    assert (status, headers["retry-after"]) == (503, "2")
    assert str(server.folder).encode() not in body
    server.process.terminate()
    assert server.process.wait(60) == 0
