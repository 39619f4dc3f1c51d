"""Full-size scoring of random features beside a plain loop over queries: `python benchmarks/scoring.py [--share 0.1]`.

SYSU-MM01: 3,803 x 6,775, four settings, ten draws each; LLCM: 7,166 x 8,680, both directions, ten draws each; RegDB:
2,060 x 2,060, both directions. Ours scores all of that, from features to scores. The loop is written from the
protocols' definition the way the field's code is: similarities and an argsort of the whole matrix for each trial, then
one query after the other in NumPy. It is timed on one trial of each setting and on `--loop_queries` of the queries, and
scaled to all; the scores of these queries are compared with ours. Ours runs before the loop and again after it, since
other programs may share the machine; both times are printed and the slower one is compared. Peak memory is that of
ours, read before the first loop begins.
"""

import argparse
import dataclasses
import os
import resource
import sys
import time
from collections.abc import Mapping

import numpy as np

from icre_jax.datasets import OTHER, Modality
from icre_jax.evals import llcm, regdb, sysu_mm01
from icre_jax.evals.galleries import group_into_folders
from icre_jax.evals.protocol import Protocol, Setting, evaluate
from icre_jax.evals.ranking import Embedded, IntArray, normalize, score

DIMENSIONS = 2048


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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of the images; 1 is the published size")
    parser.add_argument("--loop_queries", type=int, default=1000, help="queries of one trial that the loop is timed on")
    parser.add_argument("--num_trials", type=int, default=10)
    flags = parser.parse_args()
    data = make_data(np.random.default_rng(0), flags.share)
    print(f"{os.cpu_count()} cores, NumPy {np.__version__}, {DIMENSIONS} dimensions, {flags.num_trials} trials")

    def time_ours(name: str) -> float:
        begin = time.perf_counter()
        evaluate(*data[name], dataset="random features", num_trials=flags.num_trials)
        return time.perf_counter() - begin

    before = {name: time_ours(name) for name in data}
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    sums = np.zeros(2)
    for name, (protocol, sides) in data.items():
        loop = sum(time_loop(setting, sides, flags.loop_queries, flags.num_trials) for setting in protocol.settings)
        both = before[name], time_ours(name)
        sums += max(both), loop
        sizes = f"{len(sides['infrared']):,} infrared, {len(sides['visible']):,} visible"
        times = f"ours {both[0]:6.2f} and {both[1]:6.2f} s   loop {loop:7.1f} s"
        print(f"{name:10} {sizes:32} {times}   {loop / max(both):6.1f} times")
    print(f"{'all':43} ours {sums[0]:17.2f} s   loop {sums[1]:7.1f} s   {sums[1] / sums[0]:6.1f} times")
    print(f"Loop: timed on one trial and at most {flags.loop_queries} queries of each setting, scaled to all of them.")
    print(f"Peak memory of ours (ru_maxrss, features of all three data sets included): {peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
