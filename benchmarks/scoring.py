"""Full-size scoring of random features beside a plain loop over queries: `python -m benchmarks.scoring [--share 0.1]`.

SYSU-MM01: 3,803 x 6,775, four settings, ten draws each; LLCM: 7,166 x 8,680, both directions, ten draws each; RegDB:
2,060 x 2,060, both directions. Ours scores all of that, from features to scores. The loop is written from the
protocols' definition the way the field's code is: similarities and an argsort of the whole matrix for each trial, then
one query after the other in NumPy. It is timed on one trial of each setting and on `--loop_queries` of the queries, and
scaled to all; the scores of these queries are compared with ours. Ours runs before the loop and again after it, since
other programs may share the machine; both times are printed and the slower one is compared. Peak memory is that of
ours, read before the first loop begins.

`--released FILE` takes the field's own functions in the place of the loop: the file `eval_metrics.py` of LLCM's
released code, whose `eval_sysu` and `eval_regdb` are AGW's. It is not part of this project, and it is executed. As in
the code around it, features are float64, a matrix product for each trial is part of the time, and a trial is scored
whole.

`--share 10` is ten times the published size; `--loop_queries 0` leaves the loop out. `--rerank` times k-reciprocal
re-ranking of all queries and the whole pool of each data set instead.
"""

import argparse
import dataclasses
import importlib.util
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.datasets import OTHER, Modality
from icre_jax.evals import llcm, regdb, sysu_mm01
from icre_jax.evals.galleries import group_into_folders
from icre_jax.evals.protocol import Protocol, Setting, evaluate
from icre_jax.evals.ranking import Embedded, IntArray, normalize, score
from icre_jax.evals.reranking import rerank

DIMENSIONS = 2048

Released = Callable[[Embedded, Embedded, np.ndarray], tuple[np.ndarray, float, float]]


def make_side(rng: np.random.Generator, num_images: int, num_ids: int, cameras: Mapping[int, int]) -> Embedded:
    """Random features; identities spread evenly, cameras by their numbers of images."""
    shares = np.array([*cameras.values()], np.float64)
    camid = np.repeat([*cameras], np.round(shares / shares.sum() * num_images + 0.5).astype(int))[:num_images]
    pid = np.arange(num_images) % num_ids + 1
    order = np.lexsort((pid, camid))
    pid, camid = pid[order], camid[order]
    names = [f"cam{c}/{p:04d}/{i:05d}.jpg" for i, (c, p) in enumerate(zip(camid.tolist(), pid.tolist(), strict=True))]
    features = rng.standard_normal((num_images, DIMENSIONS), np.float32)
    return Embedded(features, pid.astype(np.int64), camid.astype(np.int64), np.array(names))


def make_data(rng: np.random.Generator, share: float) -> dict[str, tuple[Protocol, dict[Modality, Embedded]]]:
    """Every data set at its published size, or at a share of its images."""

    def side(num_images: int, num_ids: int, cameras: Mapping[int, int]) -> Embedded:
        return make_side(rng, max(num_ids * len(cameras), round(share * num_images)), num_ids, cameras)

    nine = dict.fromkeys(range(1, 10), 1)
    return {
        "SYSU-MM01": (
            sysu_mm01.PROTOCOL,
            {
                "infrared": side(3803, 96, {3: 1883, 6: 1920}),
                "visible": side(6775, 96, {1: 1374, 2: 1565, 4: 1918, 5: 1918}),
            },
        ),
        "LLCM": (
            # Of the two ways to ask infrared images for visible ones, the plain one.
            dataclasses.replace(llcm.PROTOCOL, settings=llcm.PROTOCOL.settings[:2]),
            {
                "infrared": side(7166, 351, {c: 1 for c in nine if c != 3}),
                "visible": side(8680, 351, nine),
            },
        ),
        "RegDB": (
            dataclasses.replace(regdb.PROTOCOL, settings=regdb.PROTOCOL.settings[:2]),
            {"visible": side(2060, 206, {1: 1}), "infrared": side(2060, 206, {2: 1})},
        ),
    }


def score_in_a_loop(query: Embedded, gallery: Embedded, setting: Setting) -> tuple[np.ndarray, float, float]:
    """CMC, mAP, mINP by the protocol's definition, one query after the other."""
    similarity = normalize(query.features) @ normalize(gallery.features).T
    indices = np.argsort(-similarity, axis=1)
    hits, precisions, inps = np.zeros(20), [], []
    for q in range(len(query)):
        order = indices[q]
        one = slice(q, q + 1)
        hidden = setting.excluded(query.pid[one], query.camid[one], gallery.pid[order], gallery.camid[order])[0]
        pids = gallery.pid[order][~hidden]
        match = pids == query.pid[q]
        if not match.any():
            continue
        ranks = np.flatnonzero(match) + 1
        precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
        inps.append(len(ranks) / ranks[-1])
        if setting.deduplicate_ids:
            kept = np.sort(np.unique(pids, return_index=True)[1])
            match = pids[kept] == query.pid[q]
        hits[np.flatnonzero(match)[0] :] += 1
    return hits / len(precisions), float(np.mean(precisions)), float(np.mean(inps))


def released_functions(file: Path) -> dict[str, Released]:
    """Data set -> the field's function of query, gallery and distances, which gives CMC, mAP and mINP."""
    spec = importlib.util.spec_from_file_location("released", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def with_cameras(function: Callable[..., Any]) -> Released:
        return lambda query, gallery, d: function(d, query.pid, gallery.pid, query.camid, gallery.camid)

    return {
        "SYSU-MM01": with_cameras(module.eval_sysu),
        "LLCM": with_cameras(module.eval_llcm),
        "RegDB": lambda query, gallery, d: module.eval_regdb(d, query.pid, gallery.pid),
    }


def time_released(function: Released, setting: Setting, sides: Mapping[Modality, Embedded], num_trials: int) -> float:
    """Seconds that the field's function takes for a setting, scaled from one whole trial; checks ours against it."""
    query, pool = sides[setting.query], sides[OTHER[setting.query]]
    gallery = pool.subset(setting.draw(group_into_folders(pool), 0) if setting.draw else np.arange(len(pool)))
    of_query, of_gallery = (normalize(side.features).astype(np.float64) for side in (query, gallery))
    begin = time.perf_counter()
    cmc, mean_ap, mean_inp = function(query, gallery, -np.matmul(of_query, of_gallery.T))
    seconds = time.perf_counter() - begin
    ours = score(query, gallery, excluded=setting.excluded, deduplicate_ids=setting.deduplicate_ids)
    # Not closer: ours are of float32, and a pair of similarities may change places.
    np.testing.assert_allclose(ours.cmc[: len(cmc)], cmc, rtol=0, atol=5 / len(query))
    np.testing.assert_allclose((ours.mAP, ours.mINP), (mean_ap, mean_inp), rtol=0, atol=1e-5)
    return seconds * (num_trials if setting.draw else 1)


def time_loop(setting: Setting, sides: Mapping[Modality, Embedded], num_queries: int, num_trials: int) -> float:
    """Seconds that the loop takes for a setting, scaled from one trial and some queries; checks ours against it."""
    query, pool = sides[setting.query], sides[OTHER[setting.query]]
    drawn: IntArray = setting.draw(group_into_folders(pool), 0) if setting.draw else np.arange(len(pool))
    gallery = pool.subset(drawn)
    rows = np.random.default_rng(1).permutation(len(query))[:num_queries]
    some = query.subset(rows)
    begin = time.perf_counter()
    cmc, mean_ap, mean_inp = score_in_a_loop(some, gallery, setting)
    seconds = time.perf_counter() - begin
    ours = score(some, gallery, excluded=setting.excluded, deduplicate_ids=setting.deduplicate_ids)
    # Not closer: argsort breaks ties as it likes, and a similarity may differ in its last bit.
    np.testing.assert_allclose(ours.cmc, cmc, rtol=0, atol=2 / len(some))
    np.testing.assert_allclose((ours.mAP, ours.mINP), (mean_ap, mean_inp), rtol=0, atol=1e-5)
    return seconds * len(query) / len(some) * (num_trials if setting.draw else 1)


def time_reranking(data: Mapping[str, tuple[Protocol, dict[Modality, Embedded]]]) -> None:
    """Print the seconds that re-ranking takes, infrared queries and all visible images of a data set at once."""
    for name, (_, sides) in data.items():
        begin = time.perf_counter()
        rerank(sides["infrared"], sides["visible"])
        sizes = f"{len(sides['infrared']):,} queries, {len(sides['visible']):,} gallery images"
        print(f"{name:10} {sizes:40} {time.perf_counter() - begin:7.1f} s   peak memory {peak_memory():.2f} GiB")


def peak_memory() -> float:
    """Of this process so far, in GiB, the features of all data sets included."""
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak / 2**30


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of the images; 1 is the published size")
    parser.add_argument("--loop_queries", type=int, default=1000, help="queries of one trial that the loop is timed on")
    parser.add_argument("--num_trials", type=int, default=10)
    parser.add_argument("--released", type=Path, help="eval_metrics.py of LLCM's released code, in the loop's place")
    parser.add_argument("--rerank", action="store_true", help="time re-ranking, and nothing else")
    flags = parser.parse_args()
    if not 0 < flags.share <= 100:
        parser.error(f"--share is {flags.share}; it must be above 0 and at most 100")
    if flags.loop_queries < 0 or flags.num_trials < 1:
        parser.error(
            f"--loop_queries is {flags.loop_queries} and --num_trials {flags.num_trials}; "
            "they must be 0 or more and 1 or more"
        )
    if flags.released and not flags.released.is_file():
        parser.error(f"--released {flags.released} is no file; give eval_metrics.py of LLCM's released code")
    data = make_data(np.random.default_rng(0), flags.share)
    print(f"{os.cpu_count()} cores, NumPy {np.__version__}, {DIMENSIONS} dimensions, {flags.num_trials} trials")
    if flags.rerank:
        time_reranking(data)
        return
    released = released_functions(flags.released) if flags.released else {}
    title = "released" if flags.released else "loop"

    def time_ours(name: str) -> float:
        begin = time.perf_counter()
        evaluate(*data[name], dataset="random features", num_trials=flags.num_trials)
        return time.perf_counter() - begin

    def time_theirs(name: str, setting: Setting, sides: Mapping[Modality, Embedded]) -> float:
        if released:
            return time_released(released[name], setting, sides, flags.num_trials)
        return time_loop(setting, sides, flags.loop_queries, flags.num_trials)

    before = {name: time_ours(name) for name in data}
    peak = peak_memory()
    sums = np.zeros(2)
    for name, (protocol, sides) in data.items():
        sizes = f"{len(sides['infrared']):,} infrared, {len(sides['visible']):,} visible"
        if not released and not flags.loop_queries:
            print(f"{name:10} {sizes:32} ours {before[name]:6.2f} s")
            continue
        theirs = sum(time_theirs(name, setting, sides) for setting in protocol.settings)
        both = before[name], time_ours(name)
        sums += max(both), theirs
        times = f"ours {both[0]:6.2f} and {both[1]:6.2f} s   {title} {theirs:7.1f} s"
        print(f"{name:10} {sizes:32} {times}   {theirs / max(both):6.1f} times")
    if sums.all():
        print(f"{'all':43} ours {sums[0]:17.2f} s   {title} {sums[1]:7.1f} s   {sums[1] / sums[0]:6.1f} times")
        what = "one whole trial" if released else f"one trial and at most {flags.loop_queries} queries"
        print(f"Timed on {what} of each setting, scaled to all of them.")
    print(f"Peak memory of ours (ru_maxrss, features of all three data sets included): {peak:.2f} GiB")


if __name__ == "__main__":
    main()
