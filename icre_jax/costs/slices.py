"""The step of training compiled for a TPU slice that is not there: whether it fits, and what the devices exchange.

libtpu compiles for a described slice on any x86-64 Linux host; nothing is run and no TPU is asked for. What the
compiler says of memory is what the slice would do: a program that does not fit is refused here as it would be there.
"""

import collections
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from icre_jax.costs.compiled import Cost, count_flops, read, step_bytes, trace_step
from icre_jax.costs.traffic import hbm_traffic
from icre_jax.engine.parallel import make_mesh
from icre_jax.engine.program import Program
from icre_jax.errors import InputError

Say = Callable[[str], None]

# HBM per device as JAX counts devices (a chip; of v2 and v3 one of the two cores), GiB. v4 is not among them: libtpu
# describes its cores, which a program cannot use one by one.
HBM = {"v2": 8, "v3": 16, "v5e": 16, "v5p": 95}
MOST_ON_A_DEVICE = 256  # images that `largest_batch` tries
_COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One kind of exchange between the devices: how often in a step, and the bytes of its results on each device."""

    kind: str
    count: int
    num_bytes: int


@dataclass(frozen=True)
class SliceCost:
    """The step of training on a slice.

    Attributes:
      name: of the slice, e.g. "v5e:2x2".
      hbm_bytes: of each device.
      cost: memory and FLOPs.
      bytes_accessed: read and written by each device in a step, as XLA counts it, in fast memory as well.
      hbm_traffic: of these, bytes to and from the device's HBM, by type of number; see `icre_jax.costs.traffic`.
      collectives: what the devices exchange.
    """

    name: str
    hbm_bytes: int
    cost: Cost
    bytes_accessed: float
    collectives: tuple[Collective, ...]
    hbm_traffic: dict[str, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"cost": self.cost.plain()}


def open_slice(name: str) -> list[Any]:
    """The devices of a slice that is described, not there.

    Raises:
      InputError: no such slice, or libtpu is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in HBM or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
        raise InputError(
            f"--tpu is {name!r}; name a slice as KIND:SHAPE, for example v5e:2x2, v5e:4x4 or v5p:2x2x1. "
            f"Kinds: {', '.join(HBM)}."
        )
    # libtpu would otherwise ask the cloud for the TPU it runs on, and wait, or complain that it has no name.
    quiet = {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    }
    for variable, value in quiet.items():
        os.environ.setdefault(variable, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except (RuntimeError, ValueError, NotImplementedError, OSError, ModuleNotFoundError) as error:
        raise InputError(
            f"The TPU slice {name} cannot be described: {str(error).splitlines()[0]}. libtpu is needed, of the version "
            "that belongs to this jax: pip install 'icre_jax[tpu]'; and the shape must be one that this kind comes in."
        ) from error


def slice_cost(program: Program, name: str, num_images: int) -> SliceCost | None:
    """Compile the step for a slice; None if it does not fit into the memory of its devices.

    Args:
      program: network, update rule and objective.
      name: of the slice.
      num_images: rows of the batch, on all devices together.

    Raises:
      InputError: see `open_slice`, and `make_mesh` for batches that the devices cannot share.
    """
    program = replace(program, accumulate_steps=1)  # in one piece, as `training_cost` counts it
    mesh = make_mesh(num_images, devices=open_slice(name))
    try:
        compiled = trace_step(program, mesh, num_images).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    # For devices that are not there a program does not tell its FLOPs; they are the same on one that is.
    here = trace_step(program, make_mesh(num_images, devices=jax.local_devices()[:1]), num_images)
    cost = read(
        compiled,
        flops=count_flops(here),
        num_images=num_images,
        num_devices=mesh.size,
        **step_bytes(program, mesh, num_images),
    )
    text = compiled.as_text() or ""
    return SliceCost(
        name=name,
        hbm_bytes=HBM[name.partition(":")[0]] * 2**30,
        cost=cost,
        bytes_accessed=float(compiled.cost_analysis()["bytes accessed"]),
        collectives=list_collectives(text),
        hbm_traffic=hbm_traffic(text),
    )


def largest_batch(program: Program, name: str, known: SliceCost | None, num_images: int, say: Say) -> int:
    """The most images a step can take on a slice, to about a sixteenth; a size that was compiled and fits.

    Memory grows by the image, so what one size uses tells where the limit lies; sizes from there downwards are compiled
    until one fits. More than 256 on a device are not tried: nobody trains with them, compiling takes the longer the
    more there are, and a small network that fits into a chip's fast memory tells no limit at all.

    Args:
      program: network, update rule and objective.
      name: of the slice.
      known: the cost of `num_images`; None if they do not fit.
      num_images: a size that was tried.
      say: told of every size that is compiled.

    Returns:
      Images on all devices; 0 if not even one pair for each device fits.
    """
    unit = 2 * len(open_slice(name))

    def attempt(size: int) -> SliceCost | None:
        cost = slice_cost(program, name, size)
        say(f"{size} images {'fit' if cost else 'do not fit'}")
        return cost

    while known is None and num_images > unit:
        num_images = max(unit, num_images // 2 // unit * unit)
        known = attempt(num_images)
    if known is None:
        return 0
    room = (known.hbm_bytes - known.cost.peak_bytes) * known.cost.num_devices
    of_image = known.cost.temporary_bytes_per_image + known.cost.batch_bytes * known.cost.num_devices / num_images
    size = min(num_images + int(room / of_image) // unit * unit, MOST_ON_A_DEVICE * known.cost.num_devices)
    while size > num_images and attempt(size) is None:
        size -= max(unit, size // 16 // unit * unit)
    return max(size, num_images)


def list_collectives(program: str) -> tuple[Collective, ...]:
    """The exchanges in a compiled program's text."""
    count: collections.Counter[str] = collections.Counter()
    num_bytes: collections.Counter[str] = collections.Counter()
    for line in program.splitlines():
        found = _COLLECTIVE.search(line)
        if found:
            count[found[2]] += 1
            num_bytes[found[2]] += sum(_bytes_of(*array) for array in _ARRAY.findall(found[1]))
    return tuple(Collective(kind, count[kind], num_bytes[kind]) for kind in sorted(count))


def _bytes_of(dtype: str, shape: str) -> int:
    size = 1 if dtype == "pred" else int(dtype.lstrip("subf")) // 8
    return size * int(np.prod([int(n) for n in shape.split(",") if n], dtype=np.int64))
