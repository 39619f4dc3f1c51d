"""One real training step: the config's own step, with a network of a few thousand parameters."""

import math
import time

import jax
import numpy as np

from icre_jax.engine.parallel import make_any_state, make_mesh, make_train_step
from icre_jax.engine.program import build_program
from icre_jax.health.findings import Finding
from icre_jax.settings.fields import Settings

_IMAGE_SIZE = (32, 16)
_ROWS_PER_DEVICE = 8  # two identities, two pairs of each


def check_step(settings: Settings) -> Finding:
    """Compile and run it on the default devices, spread as the config says."""
    began = time.perf_counter()
    settings = _shrink(settings)
    num_rows = _ROWS_PER_DEVICE * jax.device_count() * settings.optimizer.accumulate_steps
    rows = np.arange(num_rows, dtype=np.int32)
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, (num_rows, *_IMAGE_SIZE, 3), dtype=np.uint8),
        "label": rows // 4,
        "modality": rows % 2,
    }
    program = build_program(settings, num_classes=num_rows // 4, steps_per_epoch=1)
    mesh = make_mesh(num_rows, program.accumulate_steps)
    state = make_any_state(mesh, program)
    step = make_train_step(mesh, program, parallel=settings.parallel)
    _, metrics = step(state, batch)
    loss = float(metrics["loss"])
    words = f"loss {loss:.3f} of {num_rows} random images, {time.perf_counter() - began:.1f} s with compiling"
    if not math.isfinite(loss):
        return Finding("one step", "broken", f"{words}. The device computes wrong: update its driver, or use another.")
    return Finding("one step", "ok", words)


def _shrink(settings: Settings) -> Settings:
    """The same parts, losses and precision, small."""
    model = settings.model
    small = model.model_copy(
        update={
            "depth": 18,
            "width": 4,
            "non_local_blocks": tuple(min(number, 2) for number in model.non_local_blocks),
            "mpfr": model.mpfr.model_copy(update={"channels": 8}),
            "sdce": model.sdce.model_copy(update={"width": 8, "num_heads": 2}),
        }
    )
    data = settings.data.model_copy(update={"image_size": _IMAGE_SIZE})
    return settings.model_copy(update={"model": small, "data": data})
