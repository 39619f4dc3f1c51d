"""How long a step of training takes, one program against another."""

import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from icre_jax.engine.parallel import make_any_state, make_train_step
from icre_jax.engine.program import Program


def measure_steps(
    programs: Sequence[Program], mesh: Mesh, *, num_images: int, num_classes: int, num_steps: int
) -> list[list[float]]:
    """Run real steps on random images, the programs in turns, so that what else the machine does meets all alike.

    Args:
      programs: of the same image size.
      mesh: of `make_mesh(num_images)`.
      num_images: rows of the batch; a pair of rows is an identity.
      num_classes: training identities.
      num_steps: timed steps of each; one more, before them, is not timed.

    Returns:
      Seconds of every step, per program.
    """
    rows = np.arange(num_images, dtype=np.int32)
    size = (num_images, *programs[0].image_size, 3)
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8),
        "label": rows // 2 % num_classes,
        "modality": rows % 2,
    }
    steps, states = [], []
    seconds: list[list[float]] = [[] for _ in programs]
    for program in programs:
        steps.append(make_train_step(mesh, program))
        states.append(make_any_state(mesh, program))
    for turn in range(num_steps + 1):
        for i, step in enumerate(steps):
            began = time.perf_counter()
            states[i], _ = jax.block_until_ready(step(states[i], batch))
            if turn:
                seconds[i].append(time.perf_counter() - began)
    return seconds
