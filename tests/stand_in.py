"""Scores made up for a table, and a stand-in for the commands that an ablation and a sweep start."""

import csv
import io
import json
from pathlib import Path

from rich.console import Console

from icre_jax.evals.results import CMC_LENGTH, METRICS, ProtocolResult, to_document
from icre_jax.experiments import ablation_tables, experiment, noise_tables, sweep_tables
from icre_jax.experiments.experiment import Experiment, carry_out
from icre_jax.experiments.removal import folder_without, parts_of
from icre_jax.experiments.runs import Run, RunScore
from icre_jax.machine.screen import Screen


def result(rank1: float, mAP: float = 0.5, **changes) -> ProtocolResult:
    return ProtocolResult(
        protocol="SYSU-MM01",
        setting="all/single",
        dataset="synthetic people",
        direction="infrared->visible",
        flip=False,
        reranking=False,
        num_trials=2,
        num_queries=8,
        num_valid_queries=8,
        mean=dict.fromkeys(METRICS, 0.5) | {"rank1": rank1, "mAP": mAP},
        std=dict.fromkeys(METRICS, 0.0),
        cmc=[rank1] * CMC_LENGTH,
        chance=0.25,
        **{"gallery_source": "python-random", "feature": "embeddings"} | changes,
    )


def score(row: str, seed: int, rank1: float, mAP: float = 0.5, **changes) -> RunScore:
    own = {name: changes.pop(name) for name in ("without", "num_steps", "num_parameters") if name in changes}
    return RunScore(
        row,
        seed,
        result(rank1, mAP, **changes),
        **{"num_steps": 126, "num_parameters": 705_888} | own,
        seconds=12.5,
        data_fingerprint="f" * 64,
    )


TRAIN = """
import json, os, signal, sys, time
from pathlib import Path
folder, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
def note(word):
    with (folder / "notes").open("a") as file:
        file.write(word + "\\n")
def stop(number, frame):
    note("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
note("began")
print("so far so good")
if plan["wait"] and (folder / "notes").read_text().count("began") == 1:
    time.sleep(60)
if plan["code"]:
    sys.exit("error: " + plan["error"]) if plan["code"] == 1 else sys.exit(plan["code"])
(folder / "config.json").write_text(plan["config"])
(folder / "results.json").write_text(plan["results"])
(folder / "timing.jsonl").write_text('{"seconds": 2.0}\\n{"seconds": 1.5}\\n')
note(f"cores {len(os.sched_getaffinity(0))}" if hasattr(os, "sched_getaffinity") else "cores")
"""
WITHOUT = """
import json, os, sys, time
from pathlib import Path
folder, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
with (folder / "notes").open("a") as file:
    file.write("without " + ",".join(plan["files"]) + "\\n")
    file.flush()
    if plan["wait"] and (folder / "notes").read_text().count("without ") == 1:
        time.sleep(60)
for name, text in plan["files"].items():
    (folder / name).mkdir()
    (folder / name / "results.json").write_text(text)
sys.exit(plan["code"])
"""


class StandIn:
    """What the stand-in does for one row; notes of it stand in its work folder.

    Attributes:
      codes: row -> exit code of its training.
      waits: rows that wait for a signal the first time.
      removal_code: exit code of the command that takes parts out.
      removal_waits: whether that waits for a signal the first time.
      lost: parts that it does not score.
    """

    def __init__(self, monkeypatch):
        self.codes, self.waits = {}, set()
        self.removal_code, self.removal_waits, self.lost = 0, False, set()
        monkeypatch.setattr(Run, "arguments", property(self._train))
        monkeypatch.setattr(experiment, "arguments_without", self._without)
        for tables in (
            ablation_tables,
            sweep_tables,
            noise_tables,
        ):  # half a second each; drawn where the tables are tested
            monkeypatch.setattr(tables, "draw_png", lambda *_, **__: b"an image")

    def _document(self, settings, rank1: float, checkpoint: str, **changes) -> str:
        provenance = {
            "step": 3,
            "checkpoint": checkpoint,
            "num_parameters": 1000,
            "settings": settings.model_dump(mode="json"),
            "data_fingerprint": "f" * 64,
        }
        return json.dumps(to_document([result(rank1, **changes)], provenance))

    def _train(self, run: Run) -> list[str]:
        plan = {
            "wait": run.row.name in self.waits,
            "code": self.codes.get(run.row.name, 0),
            "error": "the dog ate it",
            "config": run.settings.model_dump_json(),
            "results": self._document(run.settings, 0.1 + 0.1 * run.seed + 0.01 * run.settings.perturbation, "last"),
        }
        return ["-c", TRAIN, str(run.folder), json.dumps(plan)]

    def _without(self, folder: Path, parts, settings) -> list[str]:
        """Without the i-th part Rank-1 is i points lower."""
        rank1 = {part: 0.1 + 0.1 * settings.seed - 0.01 * i for i, part in enumerate(parts_of(settings))}
        files = {
            folder_without(folder, part).name: self._document(
                settings, rank1[part], "latest", feature=f"embeddings, {part} taken out"
            )
            for part in parts
            if part not in self.lost
        }
        plan = {"files": files, "code": self.removal_code, "wait": self.removal_waits}
        return ["-c", WITHOUT, str(folder), json.dumps(plan)]


def start(plan: Experiment, num_parallel: int = 1) -> tuple[bool, str]:
    """Carry out a plan; what that returns, and what was on the screen."""
    stream = io.StringIO()
    done = carry_out(plan, num_parallel=num_parallel, screen=Screen(Console(file=stream, width=160)))
    return done, stream.getvalue()


def notes(out: Path, row: str, seed: int = 0) -> list[str]:
    path = out / row / f"seed_{seed}" / "notes"
    return path.read_text().splitlines() if path.exists() else []


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but the lock, which says who had it last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def read_csv(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))
