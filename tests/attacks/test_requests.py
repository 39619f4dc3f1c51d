"""Requests to the page of `icre_jax.serve`, as its application gets them; tests/test_serve_attacks.py has a server."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from icre_jax.errors import InputError
from icre_jax.serving.application import make_application
from icre_jax.serving.guard import Guard
from icre_jax.serving.searcher import Searcher
from tests.attacks.harness import Reader
from tests.page_server import COLOURS, SHORT, Colours, calibrated, image_bytes, make_gallery

SOUND = {
    "search": b"POST /api/search?modality=infrared\nhost: localhost\ncontent-length: 105\n\n",
    "explain": b"POST /api/explain/STATE/0?modality=visible\nhost: localhost:8765\n\n",
    "row": b"POST /api/search/STATE/3\nhost: localhost\norigin: http://localhost\nsec-fetch-site: same-origin\n\n",
    "rows": b"POST /api/explain/STATE/1?asked=2\nhost: localhost\n\n",
    "gallery": b"GET /api/gallery?start=4\nhost: localhost\nauthorization: Bearer x\n\n",
    "thumbnail": b"GET /api/gallery/STATE/0.jpg\nhost: localhost\naccept: image/*\n\n",
}
REFUSALS = {400, 401, 403, 404, 405, 410, 413, 415, 421, 422}


class Seeing(Colours):
    """As `Colours`, and says where it looks."""

    def explain(self, first, second, *, modalities):
        return SimpleNamespace(similarity=0.5, heat=np.ones((2, 3, 2), np.float32))


def make(folder: Path, _) -> None:
    body = image_bytes(COLOURS["anna"])
    for name, head in SOUND.items():
        (folder / name).write_bytes(head + (body if name in ("search", "explain") else b""))
    make_gallery(folder / "served")


def read(folder: Path) -> None:
    """Answer each file as a request; an answer that refuses one is an `InputError` here, as the harness counts."""
    searcher = Searcher(folder / "served" / "gallery", Seeing(), calibrated(), top=3, limits=SHORT)
    state = searcher.gallery(0)["state"].encode()
    app = Guard(make_application(searcher, SHORT), names=["localhost"], token=None, discarded_bytes=SHORT.body_bytes)
    requests = {name: (folder / name).read_bytes().replace(b"STATE", state) for name in SOUND}
    statuses = {name: asyncio.run(answer(app, data)) for name, data in requests.items()}
    wrong = {name: status for name, status in statuses.items() if status not in REFUSALS | {200}}
    assert not wrong, wrong
    if any(status != 200 for status in statuses.values()):
        raise InputError(f"Some requests were refused: {statuses}.")


async def answer(app, data: bytes) -> int:
    """The status of an answer; 400 of bytes that h11 takes for no head."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    found = re.fullmatch(rb"([A-Z]{1,20}) (/[!-~]*)", first)
    if found is None or any(b":" not in line or re.search(rb"[^\t -~\x80-\xff]", line) for line in lines):
        return 400
    path, _, query = found[2].partition(b"?")
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    lengths = [value for name, value in pairs if name == b"content-length"]
    if not all(re.fullmatch(rb"[0-9]{1,20}", value) for value in lengths):
        return 400
    statuses, parts = [], [body[i : i + 65_536] for i in range(0, len(body), 65_536)][::-1] or [b""]

    async def receive():
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif b"Traceback" in message.get("body", b"") or b"/tmp/" in message.get("body", b""):
            statuses.append(599)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": found[1].decode(),
        "path": unquote_to_bytes(path).decode("utf-8", "replace"), "raw_path": path, "query_string": query,
        "headers": pairs, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http", "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return statuses[-1]


READERS = (Reader("requests to the page", make, read, attacked=tuple(SOUND)),)

BY_HAND = [
    b"GET /api/gallery?start=" + b"9" * 5000, b"GET /api/gallery?start=1&start=-1", b"GET /api/gallery?start=%D9%A3",
    b"GET /api/gallery/STATE/" + b"9" * 5000 + b".jpg", b"GET /api/gallery/STATE/..%2F..%2Fetc%2Fpasswd.jpg",
    b"GET /%00%01%02", b"GET /api/gallery/%FF%FE/0.jpg", b"TRACE /api/about", b"GET /" + b"a/" * 30_000,
    b"POST /api/search?modality=" + b"a" * 60_000, b"POST /api/explain/STATE/1?asked=1e9",
    b"POST /api/search/STATE/" + b"1" * 4301,
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_requests(reader, attack):
    attacks = attack(reader)
    for number in range(30):
        attacks.mutant(number)
    for first in BY_HAND:
        outcome = attacks.by_hand(first[:40].decode(), "gallery", first + b"\nhost: localhost\n\n")
        assert outcome.said is not None
    attacks.by_hand("a body without end", "search", SOUND["search"] + b"\xff\xd8\xff" * 10**7)
    assert attacks.failures == {}
