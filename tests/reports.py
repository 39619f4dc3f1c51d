"""Made-up runs for the tests of the report, the report as text, and as what a browser makes of it."""

import dataclasses
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from configs import base
from icre_jax.evals.ranking import Embedded
from icre_jax.evals.results import METRICS, ProtocolResult
from icre_jax.report import Evaluation, ExplainedPair, RankedImage, RankedQuery, write_report
from icre_jax.settings import parse
from icre_jax.settings.fields import Settings

TIMES = "\N{MULTIPLICATION SIGN}"
RATES = {"backbone": 0.01, "head": 0.1}
VOID = {"meta", "img", "br", "hr", "link", "input"}


def make_settings(synthetic: bool = True) -> Settings:
    config = base.get_config()
    config.name = "demo"
    if synthetic:
        config.data.synthetic = {
            "seed": 7,
            "difficulty": "easy",
            "num_train_ids": 40,
            "num_val_ids": 4,
            "num_test_ids": 20,
            "num_images_per_camera": 4,
            "image_size": (128, 64),
            "num_workers": 0,
        }
    return parse(config)


def make_result(rank1: float, setting: str = "all/single", **changes: Any) -> ProtocolResult:
    cmc = (1 - (1 - rank1) * np.exp(-np.arange(20) / 6)).tolist()
    values = [cmc[0], cmc[4], cmc[9], cmc[19], 0.93 * rank1, 0.71 * rank1]
    labels: dict[str, Any] = {
        "dataset": "synthetic people",
        "protocol": "SYSU-MM01",
        "setting": setting,
        "gallery_source": "python-random",
        "direction": "infrared->visible",
        "feature": "embeddings",
        "flip": True,
        "reranking": False,
        "num_trials": 10,
        "num_queries": 160,
        "num_valid_queries": 158,
        "mean": dict(zip(METRICS, values, strict=True)),
        "std": dict(zip(METRICS, [0.0123, 0.0089, 0.0067, 0.0045, 0.0098, 0.0076], strict=True)),
        "cmc": cmc,
        "chance": 0.0503,
    }
    return ProtocolResult(**(labels | changes))


def make_image(rng: np.random.Generator, pid: int, camid: int, **labels: Any) -> RankedImage:
    image = np.empty((128, 64, 3), np.uint8)
    image[:] = rng.integers(80, 200, 3)
    image[8:30, 22:42] = (205, 165, 140)
    image[30:74, 14:50] = np.random.default_rng(pid).integers(0, 255, 3)
    image[74:122, 18:46] = np.random.default_rng(pid + 1000).integers(0, 255, 3)
    return RankedImage(image, pid, camid, **({"similarity": None, "correct": None} | labels))


def make_sides(rng: np.random.Generator, num_ids: int = 3) -> dict[str, Embedded]:
    """Test images of a few people, two of each in each modality."""
    centers = rng.normal(size=(num_ids, 8))
    pid = np.repeat(np.arange(num_ids), 2)
    return {
        modality: Embedded(
            (centers[pid] + rng.normal(size=(len(pid), 8))).astype(np.float32),
            pid,
            np.full(len(pid), camera),
            np.array([f"{modality}/{i}.png" for i in range(len(pid))]),
        )
        for modality, camera in (("visible", 1), ("infrared", 3))
    }


def make_rate(value: float) -> dict[str, float]:
    return {"value": value, "low": value / 2, "high": (1 + value) / 2}


def make_open_set() -> dict[str, Any]:
    """The content of an open_set.json."""
    points = [
        {"target": target, "threshold": 0.5 + i / 10, "fpir": make_rate(target - 0.01 * (i < 2))}
        | {"fnir": make_rate(0.3 + i / 10), "fnir_first": make_rate(0.35 + i / 10)}
        for i, target in enumerate((0.5, 0.1, 0.01))
    ]
    people = {"enrolled_persons": 10, "gallery_images": 43.5, "searched_enrolled_persons": 10, "strangers": 11}
    direction = {"direction": "infrared->visible", "left_out": "same place left out", "draws": 20, "curve": points}
    return {"dataset": "synthetic people", "confidence": 0.95, "directions": [direction | people]}


def make_run(num_steps: int = 240, num_lists: int = 4, settings: Settings | None = None) -> dict[str, Any]:
    """The arguments of `write_report` for a small, plausible run."""
    rng = np.random.default_rng(0)
    steps = []
    for step in range(10, 10 * num_steps + 1, 10):
        done = step / (10 * num_steps)
        identity = 3.7 * math.exp(-3 * done) + 0.1 * rng.random() + 0.05
        triplet = 0.5 * math.exp(-2 * done) + 0.04 * rng.random()
        rate = min(1, done * 6) * (1 if done < 0.6 else 0.1)
        steps.append(
            {
                "step": step,
                "epoch": 30 * done,
                "loss": identity + triplet,
                "loss/identity": identity,
                "loss/triplet": triplet,
                "accuracy": 1 - math.exp(-3 * done) * (1 - 0.1 * rng.random()),
                "gradient_norm": 4 * math.exp(-done) + rng.random(),
                "learning_rate/backbone": 0.01 * rate,
                "learning_rate/head": 0.1 * rate,
            }
        )
    timings = [
        {
            "step": step["step"],
            "images_per_second": 310 + 12 * rng.standard_normal() - 200 * (i == 0),
            "data_wait": 0.02 + 0.02 * rng.random(),
            "peak_memory_bytes": 1_234_567_890,
        }
        for i, step in enumerate(steps)
    ]
    settings_names = ("all/single", "all/multi", "indoor/single", "indoor/multi")
    evaluations = [
        Evaluation(label, step, epoch, [make_result(rank1 + 0.03 * i, name) for i, name in enumerate(settings_names)])
        for label, step, epoch, rank1 in (
            ("untrained", 0, 0.0, 0.0817),
            ("last", 2400, 30.0, 0.6134),
            ("best", 2000, 25.0, 0.6251),
        )
    ]
    curve = [
        {"step": 80 * epoch, "epoch": float(epoch)}
        | {k: v for name in settings_names for k, v in make_result(0.08 + 0.53 * epoch / 30, name).scalars().items()}
        for epoch in range(0, 31, 5)
    ]
    lists = []
    for q in range(num_lists):
        ranked = [
            make_image(
                rng,
                pid := q if rng.random() < 0.6 else int(rng.integers(50, 60)),
                int(rng.choice([1, 2, 4, 5])),
                similarity=0.93 - 0.031 * rank,
                correct=pid == q,
            )
            for rank in range(10)
        ]
        lists.append(RankedQuery(make_image(rng, q, 3), ranked))
    provenance = {
        "command": "python -m icre_jax.train --config=configs/demo.py --workdir=runs/<b>demo</b>",
        "started": "2026-11-22T11:27:12+00:00",
        "wall_clock_seconds": 754.3,
        "versions": {"python": "3.11.9", "jax": "0.10.1", "numpy": "2.3.0"},
        "devices": ["TFRT_CPU_0", "TFRT_CPU_1"],
        "gallery_source": "python-random",
        "num_parameters": 11_234_567,
        "git": {"commit": "bef75ee", "dirty": False},
        "data": {
            "fingerprint": "sha256:0f3a9c",
            "splits": {
                "train": {"num_ids": 40, "num_visible": 640, "num_infrared": 320},
                "test": {"num_ids": 20, "num_visible": 1320, "num_infrared": 160},
            },
        },
        "an unexpected key": {"deep": [{"er": None}, "text"]},
    }
    return {
        "settings": settings or make_settings(),
        "steps": steps,
        "timings": timings,
        "evaluations": evaluations,
        "score_curve": curve,
        "learning_rates": {name: np.repeat(base * np.array([1, 0.1]), 1200) for name, base in RATES.items()},
        "steps_per_epoch": 80,
        "provenance": provenance,
        "sides": make_sides(rng),
        "explained": [
            ExplainedPair(0.4321, make_image(rng, 7, 3), make_image(rng, 7, 1), rng.random((2, 6, 3)))
            for _ in range(num_lists)
        ],
        "rank_lists": lists,
        "hardest": [
            RankedQuery(
                make_image(rng, 0, 3),
                [
                    make_image(rng, 1, 2, similarity=0.75, correct=False),
                    make_image(rng, 0, 2, similarity=0.5, correct=True),
                ],
            )
        ],
        "open_set": make_open_set(),
    }


def make_small() -> dict[str, Any]:
    """One setting, few curves: for tests that are not about the plots."""
    arguments = make_run(num_steps=20, num_lists=1)
    keys = ("step", "epoch", "loss", "learning_rate/head", "accuracy")
    return arguments | {
        "steps": [{key: row[key] for key in keys} for row in arguments["steps"]],
        "timings": arguments["timings"][:3],
        "sides": None,
        "evaluations": [dataclasses.replace(item, results=item.results[:1]) for item in arguments["evaluations"]],
        "score_curve": [
            {key: v for key, v in row.items() if not key.startswith(("indoor", "all/multi"))}
            for row in arguments["score_curve"]
        ],
    }


def write(folder: Path, **arguments: Any) -> str:
    path = folder / "report.html"
    write_report(path, **arguments)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Checks that tags are balanced; collects attributes, ids and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.found if (value := attrs.get(attribute)) is not None]
