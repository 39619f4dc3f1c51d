"""Attacks on the page's server, which runs in a process of its own; docs/serve.md lists what it promises."""

import asyncio
import concurrent.futures
import html.parser
import io
import json
import re
import socket
import struct
import time
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from starlette.responses import PlainTextResponse

from icre_jax.retrieval.index import GalleryIndex
from icre_jax.serving.guard import HEADERS, Guard
from icre_jax.serving.searcher import Searcher, UnusableError
from icre_jax.sums import seal, unseal
from tests.conftest import ROOT
from tests.page_server import COLOURS, FORBIDDEN, SECRET, SHORT, Colours, image_bytes, make_gallery, running

SEARCH = "/api/search?modality=infrared"
RED = image_bytes(COLOURS["anna"])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    make_gallery(folder)
    (folder / "secret.txt").write_text("nobody may read this")
    with running(folder) as started:
        yield started


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    make_gallery(folder)
    return Searcher(folder / "gallery", Colours(), None, top=3, limits=SHORT)


def send(server, *parts: bytes, end: bool = False) -> bytes:
    """All that comes back for raw bytes; the parts are sent as they are, and the connection is left open."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("It did not happen within half a minute.")


def head(path: str = SEARCH, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


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
        assert b"nobody" not in body
    finally:
        file.unlink()
        file.write_bytes(kept)
    assert str(server.folder) not in json.dumps([part, server.get("/api/about")])


def test_too_large_images_are_refused_before_they_are_there(server):
    # By what they say of themselves: the answer comes although nothing follows the head.
    for length in (SHORT.body_bytes + 1, 10**19):
        answer = send(server, head(SEARCH, f"Content-Length: {length}"))
        assert status_of(answer) == 413, answer
        assert b"8 MiB at most" in answer
    # By what comes, where nothing is said.
    chunk = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
    answer = send(server, head(SEARCH, "Transfer-Encoding: chunked"), *[chunk] * 9, b"0\r\n\r\n")
    assert status_of(answer) == 413
    status, _, body = server.ask("POST", SEARCH, bytes(SHORT.body_bytes))
    assert status == 422, body  # just as large as is allowed, and no image


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(chunk(*pair) for pair in chunks) + chunk(b"IEND", b"")


def squeezed(number: int) -> bytes:
    packer = zlib.compressobj(1)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(number // 2**20)) + packer.flush()


@pytest.fixture(scope="module")
def bombs():
    """Small files that ask for much memory."""
    text = b"Comment\0\0" + squeezed(128 * 2**20)
    return {
        "as large as is refused": png(4097, 4096, (b"IDAT", squeezed(51 * 2**20))),
        "120 million pixels": png(12_000, 10_000, (b"IDAT", squeezed(128 * 2**20))),
        "4 thousand million pixels": png(2**16, 2**16, (b"IDAT", squeezed(2**20))),
        "more pixels than a file can have": png(2**31 - 1, 2**31 - 1, (b"IDAT", b"")),
        "text": png(8, 16, (b"zTXt", text), (b"IDAT", zlib.compress(bytes(16 * 25)))),
        "profile": png(8, 16, (b"iCCP", text), (b"IDAT", zlib.compress(bytes(16 * 25)))),
        "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**16, 2**16, 1, 24, 0, 0, 0, 0, 0, 0),
    }


def test_bombs_do_not_go_off(server, bombs):
    server.ask("POST", SEARCH, RED)
    before = server.memory("VmHWM")
    for name, data in bombs.items():
        assert len(data) < 2**20, name
        status, _, body = server.ask("POST", SEARCH, data)
        assert status == 422, (name, body)
    assert server.memory("VmHWM") - before < 96 * 2**20
    assert b"4097 x 4096 pixels" in server.ask("POST", SEARCH, bombs["as large as is refused"])[2]


MALFORMED = {
    "empty": b"", "text": b"no image", "half": RED[: len(RED) // 2], "GIF": b"GIF89a" + bytes(100),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "PDF": b"%PDF-1.7" + bytes(100),
    "TIFF": b"II*\0" + bytes(100), "zeros": bytes(5000), "PNG without pixels": png(8, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_image_is_refused_in_words(server, name):
    status, headers, body = server.ask("POST", SEARCH, MALFORMED[name])
    assert (status, headers["content-type"]) == (422, "application/json")
    assert json.loads(body)["error"].startswith("This image cannot be used: ")
    assert b"<" not in body


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(
    form=st.sampled_from(["PNG", "JPEG", "BMP"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 400),
)
def test_damaged_files_give_an_answer_or_are_refused(searcher, form, changes, cut):
    data = bytearray(image_bytes((200, 100, 50), (20, 10), form))
    for position, value in changes:
        data[position % len(data)] = value
    try:
        answer = searcher.find_image(bytes(data[: len(data) - cut]), "infrared")
    except UnusableError:
        return
    assert len(answer["people"]) == 3


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


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", b"A" * 100_000,
        head(SEARCH, "Content-Length: -1"), head(SEARCH, "Content-Length: x"),
        head(SEARCH, "Content-Length: 5", "Content-Length: 6"), head(SEARCH, "Transfer-Encoding: gzip"),
        head("/", "Upgrade: websocket", "Connection: Upgrade", method="BREW"),
    ],
)  # fmt: skip
def test_what_is_no_request_ends_the_connection(server, data):
    answer = send(server, data)
    assert answer == b"" or 400 <= status_of(answer) < 502, answer[:200]
    assert server.get("/api/about")["images"] == 9


def test_slow_senders_are_left(server):
    """All of them at once, and the page answers beside them."""
    slow = [
        (head(SEARCH, "Content-Length: 1000") + b"x", 408),
        (head(SEARCH, "Transfer-Encoding: chunked") + b"5\r\nab", 408),
        (b"POST /api/search HTTP/1.1\r\nHost: local", None),
        (b"", None),
    ] * 2
    with concurrent.futures.ThreadPoolExecutor(len(slow)) as pool:
        answers = [pool.submit(send, server, data) for data, _ in slow]
        assert server.get("/api/about")["images"] == 9
        assert [status_of(answer.result()) if answer.result() else None for answer in answers] == [
            status for _, status in slow
        ]


def test_when_all_places_are_taken_others_are_told_when_to_come_again(server):
    taken = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(SHORT.searches)]
    try:
        for connection in taken:
            connection.sendall(head(SEARCH, "Content-Length: 1000") + b"x")
        wait_for(lambda: server.ask("POST", SEARCH, RED)[0] == 503)
        statuses = [server.ask("POST", SEARCH, RED) for _ in range(3)]
        assert {status for status, _, _ in statuses} == {503}
        assert all(int(headers["retry-after"]) > 0 for _, headers, _ in statuses)
        assert server.get("/api/about")["images"] == 9
    finally:
        for connection in taken:
            connection.close()
    assert server.ask("POST", SEARCH, RED)[0] in (200, 503)


def test_two_hundred_at_once_in_flat_memory(server):
    data = image_bytes((250, 30, 30), (600, 580), "BMP")
    assert 2**19 * 1.9 < len(data) < 2**21

    def flood() -> list[tuple[int, bool]]:
        def one(number: int) -> tuple[int, bool]:
            try:
                status, headers, _ = server.ask("POST", SEARCH, data)
            except OSError:  # refused while it was still sending
                return 503, True
            return status, "retry-after" in headers

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            return list(pool.map(one, range(200)))

    server.ask("POST", SEARCH, data)
    before = server.memory("VmHWM")
    found = [flood() for _ in range(3)]
    for answers in found:
        # 408: on a busy machine an image may not be there in time.
        assert {status for status, _ in answers} <= {200, 408, 503}
        assert sum(status == 200 for status, _ in answers) >= 8
        assert all(told for status, told in answers if status == 503)
    # All images at once would be 200 MiB.
    assert server.memory("VmHWM") - before < 100 * 2**20
    status, _, body = server.ask("POST", SEARCH, RED)
    assert (status, json.loads(body)["people"][0]["person"]) == (200, "anna")


def test_many_silent_connections_leave_room_again(server):
    opened = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(SHORT.connections + 20)]
    try:
        for connection in opened:  # each is ended by the server
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass
        assert server.get("/api/about")["images"] == 9
    finally:
        for connection in opened:
            connection.close()


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
    assert list((server.folder / "tmp").iterdir()) == []
    assert {path.name for path in (server.folder / "gallery").iterdir()} == {
        "index.json", "embeddings-1.npy", "entries-1.csv",
    }  # fmt: skip
    lines = server.log.splitlines()
    assert lines
    for line in lines:
        assert re.search(r"Error in a request: RuntimeError in embed, line \d+ of page_server.py$", line), line
    for name in (*COLOURS, SECRET, str(server.folder), "secret.txt"):
        assert name not in server.log


def test_who_is_deleted_is_gone_from_the_page_at_once(server):
    """Last in this file: the gallery is another one afterwards."""
    before = server.get("/api/gallery")
    GalleryIndex.open(server.folder / "gallery").delete(persons=["anna"])
    assert server.ask("GET", f"/api/gallery/{before['state']}/0.jpg")[0] == 410
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
