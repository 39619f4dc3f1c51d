"""Say what a config is and what it costs, without data: `python -m icre_jax.describe --config configs/sysu_mm01.py`.

Parameters per module, FLOPs and memory of training and of embedding, what of it is sourced and what inferred, and all
that beside the baseline of the same config. With full-size networks most of the time, a minute per program on two
CPU cores, goes into compiling; `--measure_steps 0` leaves out the only part that runs them.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from icre_jax import command
from icre_jax.costs import tables
from icre_jax.costs.compare import Comparison, Measured, baseline_of, compare
from icre_jax.costs.compiled import embedding_cost, training_cost
from icre_jax.costs.parameters import list_modules
from icre_jax.costs.slices import largest_batch, slice_cost
from icre_jax.costs.timing import measure_steps
from icre_jax.data.sizes import num_training_ids
from icre_jax.errors import InputError
from icre_jax.parallel import make_mesh
from icre_jax.program import Program, build_program
from icre_jax.provenance import describe_machine
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import Settings
from icre_jax.sourced import choices_of
from icre_jax.state import num_parameters

# Of the timed steps on a CPU: ResNet-50 takes half a second per image on two cores.
_CPU_IMAGES_PER_DEVICE = 8


def describe(settings: Settings, screen: Screen, *, num_steps: int, step_batch: int | None) -> dict[str, Any]:
    """Print the tables and return what stands in them.

    Args:
      settings: the config.
      screen: where the tables go.
      num_steps: timed steps of the config and of its baseline; 0 runs nothing.
      step_batch: images in them; None is the batch of the config, on a CPU at most 8 per device.

    Returns:
      JSON-able: "config" (its name), "num_classes", "modules", "choices", "measured" ("config" and "baseline"),
      "comparison", "step_batch" (images of a timed step), "settings" and facts on the machine. For a config that is the
      baseline itself "baseline", "comparison" and "step_batch" are None.

    Raises:
      InputError: sizes that do not fit each other or the devices.
    """
    batch_size = 2 * settings.sampling.num_ids_per_batch * settings.sampling.num_images_per_id
    mesh = make_mesh(batch_size)
    step_batch = _check_steps(num_steps, step_batch, batch_size)
    num_classes = num_training_ids(settings.data)
    program = build_program(settings, num_classes=num_classes, steps_per_epoch=1)

    modules, choices = list_modules(program.network, program.image_size), choices_of(settings)
    screen.say(f"{settings.name}, {num_classes} training identities\n")
    screen.console.print(tables.modules_table(modules, program.image_size))
    screen.console.print(tables.choices_table(choices))

    def measure(name: str, program: Program) -> Measured:
        screen.say(f"compiling {name} ...")
        return Measured(
            num_parameters=num_parameters(program.abstract_state.params),
            training=training_cost(program, mesh, batch_size),
            embedding=embedding_cost(program, settings.evaluation.batch_size),
        )

    measured = {"config": measure(settings.name, program)}
    screen.console.print(tables.cost_table(measured["config"].training, measured["config"].embedding))
    rows: list[Comparison] | None = None
    reference = baseline_of(settings)
    if reference == settings:
        screen.say("This config is the baseline itself: there is nothing to compare it with.")
    else:
        programs = [program, build_program(reference, num_classes=num_classes, steps_per_epoch=1)]
        measured["baseline"] = measure("its baseline", programs[1])
        if num_steps:
            screen.say(f"running {num_steps + 1} steps of {step_batch} images of each in turns, the first untimed ...")
            seconds = measure_steps(
                programs, make_mesh(step_batch), num_images=step_batch, num_classes=num_classes, num_steps=num_steps
            )
            for name, times in zip(("config", "baseline"), seconds, strict=True):
                measured[name] = dataclasses.replace(measured[name], step_seconds=tuple(times))
                screen.say(f"{name}: {'  '.join(f'{time:.3f}' for time in times)} s")
        rows = compare(measured["config"], measured["baseline"])
        screen.console.print(tables.comparison_table(rows, settings.name))
    return {
        "config": settings.name,
        "num_classes": num_classes,
        "modules": [dataclasses.asdict(row) for row in modules],
        "choices": [
            {"part": row.choice.part, "what": row.choice.what, "tag": row.tag, **row.values} for row in choices
        ],
        "measured": {name: value.plain() for name, value in measured.items()},
        "comparison": rows and [dataclasses.asdict(row) | {"ratio": row.ratio} for row in rows],
        "step_batch": step_batch if num_steps and rows else None,
        **describe_machine(),
        "settings": settings.model_dump(mode="json"),
    }


def describe_slice(settings: Settings, name: str, screen: Screen) -> dict[str, Any]:
    """Compile the config's step for a TPU slice; print the table and return what stands in it.

    Raises:
      InputError: no such slice, libtpu is missing, a batch that its devices cannot share, or a step that does not fit
        even with one pair on each device.
    """
    batch_size = 2 * settings.sampling.num_ids_per_batch * settings.sampling.num_images_per_id
    program = build_program(settings, num_classes=num_training_ids(settings.data), steps_per_epoch=1)
    screen.say(f"{settings.name}: compiling a step for {name}, some minutes for each batch size ...")
    cost = slice_cost(program, name, batch_size)
    screen.say(f"{batch_size} images {'fit' if cost else 'do not fit'}")
    largest = largest_batch(program, name, cost, batch_size, screen.say)
    if cost is None:
        raise InputError(
            f"A step of {batch_size} images does not fit on {name}; "
            + (f"{largest} images do" if largest else "not even one pair on each device does")
            + ". Choose a smaller batch (sampling.*), a smaller picture or network, or a larger slice."
        )
    screen.console.print(tables.slice_table(cost, largest))
    return {
        "config": settings.name,
        "slice": cost.plain(),
        "largest_batch": largest,
        **describe_machine(),
        "settings": settings.model_dump(mode="json"),
    }


def _check_steps(num_steps: int, step_batch: int | None, batch_size: int) -> int:
    """The images of a timed step."""
    if num_steps < 0:
        raise InputError(f"--measure_steps is {num_steps}; allowed is 0 (run nothing) or more.")
    share = 2 * jax.device_count()  # a pair of rows on each device
    if step_batch is None:
        on_cpu = jax.default_backend() == "cpu"
        return min(batch_size, _CPU_IMAGES_PER_DEVICE * jax.device_count()) if on_cpu else batch_size
    if step_batch < 4 or step_batch % share:
        raise InputError(
            f"--measure_batch is {step_batch}; visible-infrared pairs of at least 2 identities are shared by "
            f"{jax.device_count()} devices: choose a multiple of {share}, at least 4."
        )
    return step_batch


def _open_json(path: Path) -> Path:
    """Find out now, not after minutes of compiling, whether the file can be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise InputError(f"Cannot write --json {path}: {error}. Name a file in a folder that is there.") from error


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.describe", description=__doc__.split("\n")[0])
    parser.add_argument("--measure_steps", type=int, default=3, help="timed steps per program, 0 for none; default: 3")
    parser.add_argument(
        "--measure_batch", type=int, metavar="IMAGES", help="of a timed step; default: the config's, 8 on a CPU"
    )
    parser.add_argument(
        "--tpu", metavar="SLICE", help="instead: compile the step for a TPU slice, e.g. v5e:2x2 (needs icre_jax[tpu])"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there as well")
    flags, config_flags = command.split_config_flags(parser, arguments)
    settings = command.read_config(config_flags)
    file = _open_json(flags.json) if flags.json else None
    screen = Screen(open_console())
    if flags.tpu:
        # Nothing here runs on a TPU: without this jax would look for one.
        jax.config.update("jax_platforms", "cpu")
    try:
        if flags.tpu:
            numbers = describe_slice(settings, flags.tpu, screen)
        else:
            numbers = describe(settings, screen, num_steps=flags.measure_steps, step_batch=flags.measure_batch)
    finally:
        screen.close()
    if file:
        file.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        screen.say(f"Numbers: {file}")
    return 0


if __name__ == "__main__":
    command.run(main)
