"""Write a synthetic data set to disk: all of it or nothing, once."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from icre_jax.datasets import RENDERED_MARK
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files import new_folder
from icre_jax.files.json_files import read_json_object
from icre_jax.rendering.layouts import LAYOUTS, Layout, Shot
from icre_jax.rendering.person import sample_person
from icre_jax.rendering.render import jpeg_quality, render_image
from icre_jax.rendering.settings import DIFFICULTIES, SyntheticSettings

RENDERER_VERSION = 2  # raise it whenever a pixel changes


def write_tree(
    dataset: str,
    root: Path,
    settings: SyntheticSettings,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a data set to `root` in the layout of a published one; nothing if it is there already.

    Args:
      dataset: whose layout, a key of `LAYOUTS`.
      root: the folder; it appears when it is complete.
      settings: of the people.
      num_workers: processes that render (0: this one); the files are the same for any number.
      progress: called with (identities done, identities in all) after each identity.

    Raises:
      InputError: settings that the layout cannot hold, or `root` holds anything else, or a data set of other settings.
      OSError: the disk cannot take it.
    """
    if num_workers < 0:
        raise InputError(f"num_workers is {num_workers}; allowed: 0 or more. Fix: 0 renders in this process.")
    layout = LAYOUTS[dataset](settings)
    record = {"renderer_version": RENDERER_VERSION, "layout": layout.name, **asdict(settings)}
    # Tuples become lists, as they are when read back.
    record = json.loads(json.dumps(record))
    if _is_finished(root, record):
        return
    with _new_tree(root, record) as folder:
        for path, text in layout.texts.items():
            (folder / path.parent).mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="ascii")
        people = (
            _render(folder, settings, layout)
            if num_workers == 0
            else _render_in_processes(folder, settings, layout, num_workers)
        )
        for done, _ in enumerate(people, start=1):
            if progress is not None:
                progress(done, len(layout.shots))
        (folder / RENDERED_MARK).write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")


def _render(folder: Path, settings: SyntheticSettings, layout: Layout) -> Iterator[int]:
    for pid, shots in layout.shots.items():
        write_person(folder, settings, pid, shots)
        yield pid


def _render_in_processes(folder: Path, settings: SyntheticSettings, layout: Layout, num_workers: int) -> Iterator[int]:
    """Yield each pid when its images are written; the identities are dealt out in turn.

    Processes of their own command, not `multiprocessing`: its workers start by running the caller's main module again,
    which a script without a main guard does not survive, and which would load jax into each of them.
    """
    pids = list(layout.shots)
    done: queue.Queue[int | None] = queue.Queue()
    workers = []
    with ExitStack() as stack:
        for first in range(num_workers):
            job: dict[str, Any] = {"folder": str(folder), "settings": asdict(settings), "layout": layout.name}
            job["pids"] = pids[first::num_workers]
            worker = subprocess.Popen(
                [sys.executable, "-m", "icre_jax.rendering.worker", json.dumps(job)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(worker)
            stack.callback(worker.kill)
            workers.append(worker)
            threading.Thread(target=_listen, args=(worker, done), daemon=True).start()
        num_running = num_workers
        while num_running:
            pid = done.get()
            if pid is None:
                num_running -= 1
            else:
                yield pid
        for worker in workers:
            assert worker.stderr is not None
            words = worker.stderr.read().strip()
            if worker.wait():
                raise OSError(f"a rendering process failed: {words.splitlines()[-1] if words else worker.returncode}")


def _listen(worker: subprocess.Popen, done: "queue.Queue[int | None]") -> None:
    """Passes on the pids that a worker prints, and None at its end."""
    assert worker.stdout is not None
    for line in worker.stdout:
        done.put(int(line))
    done.put(None)


def write_person(folder: Path, settings: SyntheticSettings, pid: int, shots: tuple[Shot, ...]) -> None:
    """Render and write all images of one identity below `folder`."""
    person = sample_person(settings.seed, pid)
    difficulty = DIFFICULTIES[settings.difficulty]
    for parent in {folder / shot.path.parent for shot in shots}:
        parent.mkdir(parents=True, exist_ok=True)
    for shot in shots:
        pixels = render_image(
            person,
            shot.camera,
            shot.number,
            seed=settings.seed,
            difficulty=difficulty,
            image_size=settings.image_size,
        )
        image = Image.fromarray(pixels)
        if shot.path.suffix == ".bmp":
            image.save(folder / shot.path, format="BMP")
        else:
            quality = jpeg_quality(person, shot.camera, shot.number, seed=settings.seed, difficulty=difficulty)
            image.save(folder / shot.path, format="JPEG", quality=quality)


@contextmanager
def _new_tree(root: Path, record: dict) -> Iterator[Path]:
    """`new_folder`, where another process may finish the same data set meanwhile."""
    try:
        with new_folder(root) as folder:
            yield folder
    except OSError:
        if not _is_finished(root, record):
            raise


def _is_finished(root: Path, record: dict) -> bool:
    """Whether `root` holds this data set; False if nothing is there, InputError if something else is."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file; a folder is written there. Fix: another data_dir.")
    if not root.is_dir() or not any(root.iterdir()):
        return False
    try:
        found = read_json_object(root / RENDERED_MARK)
    except UnreadableError as error:
        raise InputError(
            f"{root} is not empty and holds no readable {RENDERED_MARK}, so it is not a finished synthetic data set "
            "and stays as it is. Fix: another data_dir, or delete the folder."
        ) from error
    if found == record:
        return True
    differing = [
        f"{key} is {found.get(key)!r} there and {record.get(key)!r} here"
        for key in [*record, *(key for key in found if key not in record)]
        if found.get(key) != record.get(key)
    ]
    raise InputError(
        f"{root} holds a synthetic data set with other settings:\n{join_findings(differing)}\n"
        "Fix: another data_dir, or delete the folder."
    )
