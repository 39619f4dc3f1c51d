"""All that a config costs and is made of, without data: printed, and returned as plain numbers."""

import dataclasses
from typing import Any

import jax

from icre_jax.costs import tables
from icre_jax.costs.compare import Comparison, Measured, baseline_of, compare
from icre_jax.costs.compiled import embedding_cost, training_cost
from icre_jax.costs.parameters import list_modules
from icre_jax.costs.slices import largest_batch, slice_cost
from icre_jax.costs.timing import measure_steps
from icre_jax.data.sizes import count_training_ids
from icre_jax.engine.parallel import make_mesh
from icre_jax.engine.program import Program, build_program
from icre_jax.engine.provenance import describe_machine
from icre_jax.engine.state import num_parameters
from icre_jax.errors import InputError
from icre_jax.machine.screen import Screen
from icre_jax.settings.fields import Settings
from icre_jax.sourced import choices_of

# Of the timed steps on a CPU: ResNet-50 takes half a second per image on two cores.
_MOST_STEPS, _MOST_IMAGES = 10_000, 65_536
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
    num_classes, source = count_training_ids(settings.data)
    program = build_program(settings, num_classes=num_classes, steps_per_epoch=1)

    modules, choices = list_modules(program.network, program.image_size), choices_of(settings)
    screen.say(f"{settings.name}, {num_classes} training identities ({source})\n")
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
    program = build_program(settings, num_classes=count_training_ids(settings.data)[0], steps_per_epoch=1)
    screen.say(f"{settings.name}: compiling a step for {name}, some minutes for each batch size ...")
    cost = slice_cost(program, name, batch_size)
    screen.say(f"{batch_size} images {'fit' if cost else 'do not fit'}")
    largest = largest_batch(program, name, cost, batch_size, screen.say)
    if cost is None:
        raise InputError(
            f"A step of {batch_size} images does not fit on {name}; "
            + (f"{largest} images do" if largest else "not even one pair on each device does")
            + ". Choose a smaller batch (sampling.*), a smaller image or network, or a larger slice."
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
    if num_steps > _MOST_STEPS:
        raise InputError(f"--measure_steps is {num_steps}; allowed are at most {_MOST_STEPS:,}.")
    if step_batch is not None and step_batch > _MOST_IMAGES:
        raise InputError(f"--measure_batch is {step_batch}; allowed are at most {_MOST_IMAGES:,} images.")
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
