"""A server to attack, in a process of its own: a small gallery, and a network that sees colours only."""

import contextlib
import dataclasses
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from icre_jax.retrieval.calibration import Calibration
from icre_jax.retrieval.index import Entry, GalleryIndex
from icre_jax.retrieval.open_set import Rate
from icre_jax.serving.limits import Limits
from icre_jax.serving.searcher import Searcher
from icre_jax.serving.server import bind, check_access, serve

ROOT = Path(__file__).resolve().parent.parent  # as of tests.conftest, which starts before jax is imported
SHORT = Limits(head_seconds=1.5, body_seconds=1.5, connection_seconds=6)
COLOURS = {"anna": (250, 20, 20), "<img src=x onerror=alert(1)>": (20, 250, 20), "per & \"q\" 'x'": (20, 20, 250)}
FORBIDDEN = (255, 0, 255)  # an image of this colour is an error in the network
SECRET = "/home/somebody/the_name_of_a_file.png"


class Colours:
    """Stands in for a loaded network: an embedding is the mean colour."""

    image_size = (16, 8)
    model_hash = "c" * 64
    origin = "colours"

    def embed(self, images, *, modality, flip=False):
        means = np.asarray(images, np.float64).mean((1, 2))
        if np.abs(means - FORBIDDEN).max() < 3:
            raise RuntimeError(f"cannot do {SECRET}")
        vectors = means + 1
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def image_bytes(colour, size=(64, 32), form="PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), colour, np.uint8)).save(stream, form)
    return stream.getvalue()


SEARCH = "/api/search?modality=infrared"
RED = image_bytes(COLOURS["anna"])


def make_gallery(folder: Path, num_images: int = 3) -> GalleryIndex:
    """Several images of each colour, the later the darker, in files whose names are HTML too."""
    entries, vectors = [], []
    for number in range(num_images):
        for who, (person, colour) in enumerate(COLOURS.items()):
            name = f"{who}<b>{number}.png"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            pixels = np.asarray(colour) // (number + 1) + 5 * number
            (folder / "images" / name).write_bytes(image_bytes(pixels))
            entries.append(Entry(name, person, who + 1, "visible", str(folder / "images")))
            vectors.append(Colours().embed(np.full((1, 2, 2, 3), pixels, np.uint8), modality="visible")[0])
    return GalleryIndex.create(
        folder / "gallery", np.stack(vectors), entries, model_hash=Colours.model_hash, origin="colours"
    )


def calibrated(threshold: float = 0.9, **changes) -> Calibration:
    rate = Rate(0.1, 0.0, 0.2)
    facts = {
        "model_hash": Colours.model_hash, "origin": "colours", "created": "2026-01-01T00:00:00+00:00",
        "query_modality": "infrared", "gallery_modality": "visible", "flip": False, "target": 0.1,
        "threshold": threshold, "fpir": rate, "fnir": rate, "fnir_first": rate, "confidence": 0.95, "num_enrolled": 3,
        "num_images": 9.0, "num_mated": 3, "num_strangers": 3, "num_held_out": 6, "num_draws": 1, "seed": 0,
        "curve": [], "method": "",
    }  # fmt: skip
    return Calibration(**{**facts, **changes})


@dataclasses.dataclass
class Server:
    """A process that serves `folder`."""

    process: subprocess.Popen
    folder: Path
    port: int

    def ask(self, method: str, path: str, body=None, headers=None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def get(self, path: str):
        """The JSON at a path."""
        status, _, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def memory(self, name: str) -> int:
        """VmRSS or VmHWM of the process, in bytes."""
        return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Serve the gallery of `make_gallery` in `folder`; its temporary files would be in folder/tmp."""
    (folder / "tmp").mkdir()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.page_server", str(folder)],
            cwd=ROOT, env=os.environ | {"TMPDIR": str(folder / "tmp")}, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        with process:
            try:
                line = process.stdout.readline()
                assert line, (folder / "log").read_text()
                yield Server(process, folder, int(line))
            finally:
                process.terminate()


@contextlib.contextmanager
def attacked(folder: Path) -> Iterator[Server]:
    """Serve a gallery made in `folder`, beside a file that nobody may read."""
    make_gallery(folder)
    (folder / "secret.txt").write_text("nobody may read this")
    with running(folder) as started:
        yield started


def head(path: str = SEARCH, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


def send(server: Server, *parts: bytes, end: bool = False) -> bytes:
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


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("It did not happen within half a minute.")


def check_that_nothing_is_kept(server: Server) -> None:
    """No temporary file, no other file beside the index, and no name in the log."""
    assert list((server.folder / "tmp").iterdir()) == []
    assert {path.name for path in (server.folder / "gallery").iterdir()} == {
        "index.json", "embeddings-1.npy", "entries-1.csv",
    }  # fmt: skip
    for line in server.log.splitlines():
        assert re.search(r"Error in a request: RuntimeError in embed, line \d+ of page_server.py$", line), line
    for name in (*COLOURS, SECRET, str(server.folder), "secret.txt"):
        assert name not in server.log


def main(folder: Path) -> None:
    """The process."""
    searcher = Searcher(folder / "gallery", Colours(), calibrated(), top=10, limits=SHORT)
    access = check_access("127.0.0.1", (), None)
    with bind(access, 0) as opened:
        opened.listen()
        print(opened.getsockname()[1], flush=True)
        serve(searcher, access, opened, SHORT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
