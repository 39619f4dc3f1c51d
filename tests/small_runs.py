"""Small runs in this process, and how two of them are compared, for several test files."""

import dataclasses
import io
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console

from icre_jax.evals.results import read_results
from icre_jax.settings import differences, parse
from icre_jax.training.loop import train_and_evaluate
from icre_jax.training.run import Run, assemble


def run(config, workdir: Path):
    """Train; what the function returns, and what was on the screen."""
    screen = io.StringIO()
    outcome = train_and_evaluate(parse(config), workdir, console=Console(file=screen, width=160))
    return outcome, screen.getvalue()


def arrays_of(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, read with orbax alone."""
    names = ("params", "batch_stats", "opt_state")
    with ocp.StandardCheckpointer() as reader:
        trees = {name: reader.restore(workdir / "checkpoints" / str(step) / name) for name in names}
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_checkpoint(first: Path, second: Path, step: int) -> None:
    a, b = arrays_of(first, step), arrays_of(second, step)
    assert a.keys() == b.keys()
    assert len(a) > 100
    for name, value in a.items():
        assert value.tobytes() == b[name].tobytes(), name


def saved_steps(workdir: Path) -> set[int]:
    """Steps in the checkpoints folder; anything else there is a leftover."""
    return {int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name != ".deleted"}


def assert_same_run(first: Path, second: Path) -> None:
    """Same checkpoints bit for bit, same log, same files."""
    assert saved_steps(first) == saved_steps(second)
    for step in saved_steps(first):
        assert_same_checkpoint(first, second, step)
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
    for folder in (".", "best"):  # beside the results stand the commands, which differ
        assert read_results(first / folder)[0] == read_results(second / folder)[0]
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}


class CompiledRuns:
    """Stands in for `icre_jax.training.run.assemble`: settings that compute the same share what was compiled."""

    def __init__(self):
        self._runs: list[tuple[Run, object]] = []

    def __call__(self, settings, workdir, prepared) -> Run:
        fitting = [
            (known, initial)
            for known, initial in self._runs
            if not differences(known.settings, settings) and known.prepared.folder == prepared.folder
        ]
        if not fitting:
            known = assemble(settings, workdir, prepared)
            fitting = [(known, jax.device_get(known.create_state()))]
            self._runs += fitting
        known, initial = fitting[0]
        shardings = jax.tree.map(lambda x: x.sharding, known.abstract_state)

        def create_state():
            # A step uses up the state it is given.
            return jax.device_put(initial, shardings, may_alias=False)

        return dataclasses.replace(
            known, settings=settings, workdir=workdir, prepared=prepared, create_state=create_state
        )
