"""Where arrays live, and the two ways to run a step on several devices: `jit` over a mesh, and `pmap`.

Both run the same step (`icre_jax.engine.steps`), and both act on the global batch: BatchNorm's statistics, centers,
mining and every loss. The state has no device axis, so a checkpoint moves between the two and between numbers of
devices. The devices may be those of several processes (`icre_jax.machine.hosts`); each then loads its own rows of a
batch.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from icre_jax.engine.program import Program
from icre_jax.engine.state import TrainState
from icre_jax.engine.steps import train_step
from icre_jax.errors import InputError
from icre_jax.machine import compiler, hosts
from icre_jax.models.network import over_axis

BATCH_AXIS = "batch"

Step = Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]


def make_mesh(batch_size: int, accumulate_steps: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices in one row.

    Args:
      batch_size: rows of a batch.
      accumulate_steps: micro-batches that it is divided into.
      devices: others than those of this machine, to compile for them.

    Raises:
      InputError: the rows of a batch come in pairs, and the pairs do not spread evenly over the devices and
        micro-batches.
    """
    num_devices = jax.device_count() if devices is None else len(devices)
    if (batch_size // 2) % (num_devices * accumulate_steps):
        shares = f"{num_devices} devices"
        if jax.process_count() > 1:
            shares += f" ({jax.process_count()} processes with {jax.local_device_count()} each)"
        if accumulate_steps > 1:
            shares += f" x {accumulate_steps} micro-batches (optimizer.accumulate_steps)"
        raise InputError(
            f"A batch of {batch_size} rows is {batch_size // 2} visible-infrared pairs, which {shares} "
            f"cannot share evenly; choose num_ids_per_batch x num_images_per_id as a multiple of "
            f"{num_devices * accumulate_steps}."
        )
    # Auto axes: with the default, explicit ones, a distance matrix between sharded rows is a type error.
    return jax.make_mesh((num_devices,), (BATCH_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def local_rows(mesh: Mesh, batch_size: int) -> list[int] | None:
    """The rows of a batch that lie on the devices of this process, ascending; None for all, in a single process."""
    if jax.process_count() == 1:
        return None
    shards = NamedSharding(mesh, PartitionSpec(BATCH_AXIS)).addressable_devices_indices_map((batch_size,))
    slices = {index[0].indices(batch_size) for index in shards.values() if index is not None}
    return sorted(row for start, stop, step in slices for row in range(start, stop, step))


def spread(mesh: Mesh, rows: Any) -> Any:
    """Trees of NumPy arrays with this process's rows (`local_rows`) -> global arrays, rows spread over the mesh.

    What a step reads gets to its devices here and nowhere else, so that training can forbid any other transfer
    (`jax.transfer_guard`).
    """
    # Of several processes the library does not say to the guard that it is meant.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(BATCH_AXIS)), rows)


def gather(arrays: Any) -> Any:
    """Trees of arrays -> the whole of them as NumPy arrays, in every process."""
    # Meant, though the library reads the devices without saying so.
    with jax.transfer_guard("allow"):
        return multihost_utils.process_allgather(arrays, tiled=True)


def make_state(mesh: Mesh, seed: int, program: Program) -> TrainState:
    """Initial state, created on the devices (a copy from the host could share memory with what a step uses up)."""
    # It runs once, and draws many small arrays: most of its time would go into making it fast.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(program.create_state, out_shardings=everywhere, compiler_options=options)(np.int32(seed))


def make_any_state(mesh: Mesh, program: Program) -> TrainState:
    """Some initial state, for a step whose numbers nobody asks for: it compiles in half the time.

    Another generator draws the weights, which gives others on every kind of device.
    """
    with jax.default_prng_impl("unsafe_rbg"):
        return make_state(mesh, 0, program)


def make_train_step(mesh: Mesh, program: Program, *, parallel: str = "jit") -> Step:
    """Compiled `train_step` over all devices of the mesh.

    Args:
      mesh: of `make_mesh`.
      program: what the step computes.
      parallel: "jit" or "pmap".

    Returns:
      (state, batch) -> (state, metrics); of several processes, each gives its own rows of the batch. The state given in
      is used up: its memory becomes that of the new one.
    """
    if parallel == "jit":
        return _jit(mesh, functools.partial(train_step, program=program))
    mapped = dataclasses.replace(program, network=over_axis(program.network, BATCH_AXIS))
    return _pmap(mesh, functools.partial(train_step, program=mapped, axis_name=BATCH_AXIS))


@contextlib.contextmanager
def compiled_meanwhile(step: Step, mesh: Mesh, state: TrainState, batch: dict[str, jax.ShapeDtypeStruct]) -> Iterator:
    """Compile a step, or load it from the cache, while the block does something else; it is there at the block's end.

    It takes one thread, which tracing and loading do not share with what the devices compute. Only a "jit" step of a
    single process is compiled ahead, and none for GPUs: their compiler measures kernels to choose from them, for which
    it needs the device for itself.

    Args:
      step: of `make_train_step`.
      mesh: its devices.
      state: that it will be given, or its shapes.
      batch: shapes of a batch; see `Program.abstract_batch`.
    """
    function = getattr(step, "__wrapped__", None)
    if function is None or jax.process_count() > 1 or jax.default_backend() == "gpu":
        yield
        return
    apart = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    rows = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=apart) for name, x in batch.items()}

    def compile_it() -> None:
        # What goes wrong here will go wrong in the first step as well, which says it where it is heard.
        with contextlib.suppress(Exception):
            function.lower(state, rows).compile()  # kept by `function` itself

    thread = compiler.start(compile_it)
    yield  # if this fails nobody waits: a command ends beside the thread
    thread.join()


def _jit(mesh: Mesh, step: Step) -> Step:
    everywhere = NamedSharding(mesh, PartitionSpec())
    apart = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    compiled = jax.jit(
        step, in_shardings=(everywhere, apart), out_shardings=(everywhere, everywhere), donate_argnames=("state",)
    )
    run = compiled if jax.process_count() == 1 else _compiled_together(compiled)

    def placed(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        return run(state, spread(mesh, batch))

    placed.__wrapped__ = compiled  # type: ignore[attr-defined]  # for those who ask what it costs
    return placed


def _pmap(mesh: Mesh, step: Step) -> Step:
    num_devices = len(mesh.local_devices)
    here = NamedSharding(Mesh(np.array(mesh.local_devices), (BATCH_AXIS,)), PartitionSpec(BATCH_AXIS))
    # None for the state, in and out: it never carries a device axis.
    mapped = jax.pmap(
        step,
        axis_name=BATCH_AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        devices=list(mesh.devices.flat),
        donate_argnums=(0,),
    )
    if jax.process_count() > 1:
        mapped = _compiled_together(mapped)

    def run(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        # Consecutive rows to each device, so that pairs stay pairs.
        apart = {name: rows.reshape(num_devices, -1, *rows.shape[1:]) for name, rows in batch.items()}
        state, metrics = mapped(state, jax.device_put(apart, here))
        # Of several processes each gets its own copies; as one array they are what `jit` gives.
        return (state if jax.process_count() == 1 else jax.tree.map(join_copies, state)), metrics

    def join_copies(copies: jax.Array) -> jax.Array:
        shards = [shard.data for shard in copies.addressable_shards]
        return jax.make_array_from_single_device_arrays(copies.shape, NamedSharding(mesh, PartitionSpec()), shards)

    return run


def _compiled_together(function: Any) -> Callable[..., Any]:
    """The function, compiled in all processes before any of them runs it for the first time.

    A process that runs ahead waits in a collective for one that still compiles, and not for long: gloo, the collectives
    of CPUs, gives up after 30 s.
    """
    compiled = False

    def run(*args: Any) -> Any:
        nonlocal compiled
        if not compiled:
            function.lower(*args).compile()  # kept by `function` itself
            hosts.exchange(None)
            compiled = True
        return function(*args)

    return run
