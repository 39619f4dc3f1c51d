"""Attacks on the page's server by images: too large, explosive, damaged, or none at all."""

import concurrent.futures
import dataclasses
import io
import json
import struct
import time
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from icre_jax.data.reading import decode_file
from icre_jax.engine.saliency import Explanation
from icre_jax.serving.searcher import Searcher, UnusableError
from tests.page_server import (
    COLOURS,
    RED,
    SEARCH,
    SHORT,
    Colours,
    attacked,
    check_that_nothing_is_kept,
    head,
    image_bytes,
    make_gallery,
    send,
    status_of,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with attacked(tmp_path_factory.mktemp("served")) as started:
        yield started


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    make_gallery(folder)
    return Searcher(folder / "gallery", Colours(), None, top=3, limits=SHORT)


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


def test_what_is_sent_is_limited_and_the_gallery_is_not(tmp_path):
    """Who made the index has let its images in, perhaps with --max_pixels."""
    make_gallery(tmp_path)
    limits = dataclasses.replace(SHORT, pixels=64 * 32 - 1)
    searcher = Searcher(tmp_path / "gallery", Seeing(), None, top=3, limits=limits)
    state = searcher.gallery(0)["state"]
    with Image.open(io.BytesIO(searcher.thumbnail(state, 0))) as image:
        assert image.size == (96, 192)
    assert searcher.explain_row(state, 0, 1)["similarity"] == 0.5
    assert searcher.explain_image(image_bytes(COLOURS["anna"], (8, 8)), "infrared", state, 0)["similarity"] == 0.5
    with pytest.raises(UnusableError, match="at most 2,047 in all"):
        searcher.find_image(RED, "infrared")
    with pytest.raises(UnusableError, match="at most 2,047 in all"):
        searcher.explain_image(RED, "infrared", state, 0)


class Seeing(Colours):
    """It explains everything alike."""

    def explain(self, first, second, *, modalities):
        return Explanation(0.5, np.stack([first, second]), np.ones((2, 3, 3), np.float32))


def test_one_image_of_the_gallery_is_decoded_at_a_time(tmp_path, monkeypatch):
    """Also while a small one is made and heat is asked for, which two threads do."""
    make_gallery(tmp_path)
    searcher = Searcher(tmp_path / "gallery", Seeing(), None, top=3, limits=SHORT)
    state, now, most = searcher.gallery(0)["state"], [], []

    def slowly(*args):
        now.append(args)
        most.append(len(now))
        time.sleep(0.05)
        now.pop()
        return decode_file(*args)

    monkeypatch.setattr("icre_jax.serving.searcher.decode_file", slowly)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        small = [pool.submit(searcher.thumbnail, state, row) for row in range(3)]
        heat = [pool.submit(searcher.explain_row, state, row, 0) for row in range(3)]
        for future in (*small, *heat):
            future.result()
    assert (len(most), max(most)) == (9, 1)


def test_large_images_of_the_gallery_are_shown_one_at_a_time(server):
    part = server.get("/api/gallery")
    files = [server.folder / "images" / image["path"] for image in part["images"]]
    kept = [file.read_bytes() for file in files]
    rows = range(len(files))

    def ask(row: int) -> int:
        return server.ask("GET", f"/api/gallery/{part['state']}/{row}.jpg")[0]

    try:
        for file in files:
            file.write_bytes(png(6000, 5000, (b"IDAT", squeezed(90 * 2**20))))
        assert ask(0) == 200
        before = server.memory("VmHWM")
        with concurrent.futures.ThreadPoolExecutor(len(files)) as pool:
            assert [*pool.map(ask, rows)] == [200 for _ in rows]
        assert server.memory("VmHWM") - before < 64 * 2**20  # one takes 120 MiB
    finally:
        for file, data in zip(files, kept, strict=True):
            file.write_bytes(data)


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


def test_nothing_is_kept(server):
    """Last in this file: after all of these requests."""
    check_that_nothing_is_kept(server)
