"""Exact search in a large gallery: time, memory, and share of a matrix product's speed.

    python -m benchmarks.search [--rows 1000000] [--dimensions 2048] [--queries 1 16 256] [--rounds 3]

Writes a gallery of random float16 rows of length 1 to a file (--folder; 4 GB at the default size, deleted at the end),
maps it into memory as an index does, and searches it. Beside it runs a matrix product in float32 of the same size, on
chunks that lie in memory already: what is left of a search when nothing is read, converted or chosen. With faiss
installed, its exact search of float16 rows (IndexScalarQuantizer) and of float32 rows (IndexFlatIP, if they fit into
--faiss_gib) run as well, and how many rows both find is printed. All programs run in turns. Memory is that of a process
of its own that only searches: with the pages of the mapped file that were in memory, and without, as the system may
drop those at any time.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleaved import ratios, run_in_turns
from icre_jax.engine.host_search import search_on_host
from icre_jax.retrieval.rows import LONGEST, compare_rows, map_rows, write_rows

TOP = 10
_ROWS_TOGETHER = 16384

# Peak of the whole process, and of what is its own; Linux counts the rest apart.
_MEASURE = """
import sys, threading, time
import numpy as np
from icre_jax.engine.host_search import search_on_host
from icre_jax.retrieval.rows import LONGEST
gallery = np.load(sys.argv[1], mmap_mode="r", allow_pickle=False)
queries = np.random.default_rng(1).standard_normal((int(sys.argv[2]), gallery.shape[1]), np.float32)
def read():
    with open("/proc/self/status") as file:
        said = dict(line.split(":", 1) for line in file)
    return [int(said[name].split()[0]) / 2**20 for name in ("VmHWM", "RssAnon")]
own, done = [0.0], threading.Event()
def watch():
    while not done.wait(0.02):
        own[0] = max(own[0], read()[1])
threading.Thread(target=watch, daemon=True).start()
search_on_host(queries, gallery, top=10, longest=LONGEST)
done.set()
print(read()[0], max(own[0], read()[1]))
"""


def write_gallery(path: Path, rows: int, dimensions: int) -> list[str]:
    """Random directions, as an index stores them; their sums."""
    rng = np.random.default_rng(0)
    blocks = (
        rng.standard_normal((min(_ROWS_TOGETHER, rows - start), dimensions), np.float32)
        for start in range(0, rows, _ROWS_TOGETHER)
    )
    return write_rows(path, blocks, num_rows=rows, dimensions=dimensions, name=str)


def make_product(queries: np.ndarray, rows: int) -> Callable[[], Any]:
    """The matrix product of a search alone, chunk by chunk as large as a search's."""
    chunk = np.random.default_rng(2).standard_normal((4096, queries.shape[1]), np.float32)
    block = min(len(queries), 1024)
    out = np.empty((block, len(chunk)), np.float32)

    def run() -> None:
        for start in range(0, rows, len(chunk)):
            part = chunk[: rows - start]
            for first in range(0, len(queries), block):
                some = queries[first : first + block]
                if (len(some), len(part)) == out.shape:
                    np.matmul(some, part.T, out=out)
                else:
                    some @ part.T

    return run


def make_faiss(gallery: np.ndarray, queries: np.ndarray, gib: float) -> dict[str, Callable[[], Any]]:
    """Exact indexes of faiss that fit into `gib` GiB; empty where it is not installed."""
    if importlib.util.find_spec("faiss") is None:
        return {}
    import faiss

    rows, dimensions = gallery.shape
    indexes = {}
    if 2 * gallery.size <= gib * 2**30:
        indexes["faiss float16"] = faiss.IndexScalarQuantizer(
            dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
    if 4 * gallery.size <= gib * 2**30:
        indexes["faiss float32"] = faiss.IndexFlatIP(dimensions)
    for index in indexes.values():
        for start in range(0, rows, _ROWS_TOGETHER):
            index.add(gallery[start : start + _ROWS_TOGETHER].astype(np.float32))
    return {name: (lambda index=index: index.search(queries, TOP)[1]) for name, index in indexes.items()}


def report(gallery: np.ndarray, number: int, rounds: int, faiss_gib: float) -> None:
    """Time one number of queries, and print what it took."""
    queries = np.random.default_rng(1).standard_normal((number, gallery.shape[1]), np.float32)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: search_on_host(queries, gallery, top=TOP, longest=LONGEST).indices,
        "matrix product": make_product(queries, len(gallery)),
        **make_faiss(gallery, queries, faiss_gib),
    }
    for name in calls:
        if name.startswith("faiss"):
            same = (calls[name]() == calls["ours"]()).mean()
            print(f"  {name} finds {100 * same:.2f} % of the rows at the same rank")
    timed = run_in_turns(calls, rounds)
    operations = 2 * number * gallery.size
    for name, times in timed.items():
        middle, low, high = ratios(timed["ours"], times)
        speed = f"{operations / times.median / 1e9:7.1f} GFLOP/s"
        print(
            f"  {number:5} queries  {name:15} {times.median:8.3f} s  {1000 * times.median / number:8.2f} ms a query  "
            f"{speed}  ours takes {middle:.2f} times as long ({low:.2f} to {high:.2f})"
        )
    middle, *_ = ratios(timed["matrix product"], timed["ours"])
    print(f"  {number:5} queries  share of the matrix product's speed: {100 * middle:.0f} %")


def report_sums(gallery: np.ndarray, sums: list[str], rounds: int) -> None:
    """Time the comparison of an opening, beside a search for one query."""
    query = np.random.default_rng(1).standard_normal((1, gallery.shape[1]), np.float32)
    calls: dict[str, Callable[[], Any]] = {
        "compare": lambda: compare_rows(gallery, sums, range(len(gallery))),
        "query": lambda: search_on_host(query, gallery, top=TOP, longest=LONGEST),
    }
    timed = run_in_turns(calls, rounds)
    middle, low, high = ratios(timed["compare"], timed["query"])
    cpu = statistics.median(timed["compare"].cpu_seconds)
    print(
        f"  an opening compares all rows with their sums in {timed['compare'].median:.2f} s ({cpu:.2f} s of CPU time), "
        f"{middle:.1f} times one query ({low:.1f} to {high:.1f})"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the gallery's file; default: the system's temporary folder")
    parser.add_argument("--faiss_gib", type=float, default=5.0, help="memory that an index of faiss may take")
    flags = parser.parse_args()
    for name in ("rows", "dimensions", "rounds"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} is {getattr(flags, name)}; it must be 1 or more")
    if min(flags.queries) < 1:
        parser.error(f"--queries is {min(flags.queries)}; it must be 1 or more")
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        path = Path(folder, "embeddings.npy")
        sums = write_gallery(path, flags.rows, flags.dimensions)
        gallery = map_rows(path, sums, num_rows=flags.rows, dimensions=flags.dimensions)
        size = path.stat().st_size / 2**30
        print(
            f"{os.cpu_count()} cores, NumPy {np.__version__}; {flags.rows:,} x {flags.dimensions} float16 "
            f"({size:.2f} GiB), the best {TOP}"
        )
        for number in flags.queries:
            report(gallery, number, flags.rounds, flags.faiss_gib)
        report_sums(gallery, sums, flags.rounds)
        if sys.platform == "linux":
            command = [sys.executable, "-c", _MEASURE, str(path), str(max(flags.queries))]
            peak, own = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            print(
                f"Memory of a process that searches, {max(flags.queries)} queries: peak {float(peak):.2f} GiB with "
                f"the mapped file, {float(own):.2f} GiB without"
            )


if __name__ == "__main__":
    main()
