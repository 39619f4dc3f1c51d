"""Several processes (hosts) that train one network together: how they meet, agree and part.

With one process everything here is a call and nothing else. What processes tell each other goes through the meeting
point of `jax.distributed` (the "coordinator" in process 0), not through devices: a wait may then be as long as
preparing a data set takes, and ends where a process is lost.
"""

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from icre_jax.errors import HostError, InputError, NotSavedError
from icre_jax.machine.command import EXIT_NOT_SAVED

MEETING_SECONDS = 300  # for all processes to start
HEARTBEAT_SECONDS = 60  # silence after which a process counts as lost, and the others end
_PARTING_SECONDS = 15  # a process that ends waits so long for the others to end as well
_LOOK_SECONDS = 0.5  # between two looks at what another process says
_WORK_SECONDS = 24 * 3600  # longest work of one process that others wait for: preparing a data set

T = TypeVar("T")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `join` reads."""
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="this is one of several processes; start the same command in each. Who they are is asked of the cluster "
        "(SLURM, Cloud TPU, Kubernetes, Open MPI) unless the next three flags say it",
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens; a free port")
    parser.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    parser.add_argument("--process_id", type=int, metavar="I", help="which of them this is, 0 .. N-1")


def join(flags: argparse.Namespace) -> None:
    """Meet the other processes; nothing without --distributed. Before anything asks for a device.

    Raises:
      InputError: flags that do not fit together, or nobody to meet.
    """
    given = {name: getattr(flags, name) for name in ("coordinator", "num_processes", "process_id")}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if not flags.distributed:
        if len(missing) < len(given):
            raise InputError("--coordinator, --num_processes and --process_id need --distributed as well.")
        return
    if missing and len(missing) < len(given):
        raise InputError(
            f"{', '.join(missing)} missing: give --coordinator, --num_processes and --process_id together, or none of "
            "them where the cluster says it (SLURM, Cloud TPU, Kubernetes, Open MPI)."
        )
    if not missing:
        _check_flags(flags.coordinator, flags.num_processes, flags.process_id)
        name = f"process {flags.process_id} of {flags.num_processes}"
        print(f"{name}: meeting at {flags.coordinator}, for up to {MEETING_SECONDS} s", file=sys.stderr, flush=True)
        if flags.process_id:
            wait_for_port(flags.coordinator, MEETING_SECONDS)
    # Its handler of SIGTERM would come before ours: a request to stop is agreed upon by `Vote`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            flags.coordinator,
            flags.num_processes,
            flags.process_id,
            initialization_timeout=MEETING_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_PARTING_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        where = flags.coordinator or "the place that the cluster names"
        raise InputError(
            f"The processes cannot meet at {where}: {error}. Without a cluster that is known, give --coordinator "
            "HOST:PORT (a free port of the machine of process 0), --num_processes N and --process_id I."
        ) from error


def _check_flags(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator is {coordinator!r}; it must be HOST:PORT, for example 10.0.0.1:12345.")
    if num_processes < 1:
        raise InputError(f"--num_processes is {num_processes}; it must be 1 or more.")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id is {process_id}; with --num_processes {num_processes} it must be 0 .. {num_processes - 1}."
        )


def wait_for_port(address: str, seconds: float) -> None:
    """Return when somebody listens at HOST:PORT. (JAX itself would end this process without a word of ours.)

    Raises:
      InputError: nobody does within that time.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"Nobody listens at --coordinator {address} ({error}). Start process 0 (--process_id 0) on that "
                    "machine, and see that the port is open."
                ) from error
        time.sleep(0.5)


def is_first() -> bool:
    """Whether this is process 0, the only one that writes files and talks."""
    return jax.process_index() == 0


def exchange(value: Any) -> list[Any]:
    """What each process gives (JSON-able), known to all, in the order of the processes."""
    if jax.process_count() == 1:
        return [value]
    topic = _next_topic()
    _client().key_value_set(f"{topic}/{jax.process_index()}", json.dumps(value))
    return [_read(f"{topic}/{i}") for i in range(jax.process_count())]


def everywhere(work: Callable[[], T]) -> T:
    """Every process does `work`, and goes on only if all could.

    An `InputError` or a `NotSavedError` of one is an error of all.
    """
    result: list[T] = []
    mine: InputError | NotSavedError | None = None
    try:
        result.append(work())
    except (InputError, NotSavedError) as error:
        mine = error
    findings = exchange(None if mine is None else [isinstance(mine, NotSavedError), str(mine)])
    if mine is not None:
        raise mine
    found = [f"process {i}: {finding[1]}" for i, finding in enumerate(findings) if finding is not None]
    if found:
        kind = NotSavedError if any(finding and finding[0] for finding in findings) else InputError
        raise kind("Another process cannot go on.\n" + "\n".join(found))
    return result[0]


def from_first(work: Callable[[], T]) -> T:
    """What `work` gives in process 0, in all; it runs there only. JSON-able. Its error is an error of all."""
    if jax.process_count() == 1:
        return work()
    topic = _next_topic()
    if is_first():
        try:
            value = work()
        except Exception as error:
            _client().key_value_set(topic, json.dumps({"error": str(error), "usable": isinstance(error, InputError)}))
            raise
        _client().key_value_set(topic, json.dumps({"value": value}))
        return value
    told = _read(topic)
    if "error" in told:
        kind = InputError if told["usable"] else HostError
        raise kind(f"process 0: {told['error']}")
    return told["value"]


def first_then_others(work: Callable[[], T]) -> T:
    """Every process does `work`, process 0 before all others: what it leaves in a common folder is there for them."""
    result: list[T] = []
    from_first(lambda: result.append(work()))
    return everywhere(lambda: result[0] if result else work())


def save_together(work: Callable[[], None], *, failed: Callable[[], str | None] = lambda: None) -> None:
    """A save in which processes wait for each other inside a library, which knows nothing of a process that failed.

    Where one cannot write, all end with its message and exit code 4 (`icre_jax.machine.command.EXIT_NOT_SAVED`), and
    none waits: the library's steps would no longer fit each other, so the run does not go on. Alone, `work` and nothing
    else.

    Args:
      work: raises `NotSavedError` where it cannot write.
      failed: asked meanwhile, in another thread: why this process cannot write, if the library keeps it to itself.
    """
    if jax.process_count() == 1:
        return work()
    topic, done = _next_topic(), threading.Event()
    watch = threading.Thread(target=_end_with_others, args=(topic, done, failed), daemon=True)
    watch.start()
    try:
        work()
    except NotSavedError as error:
        done.set()
        _end_not_saved(topic, str(error), tell=True)
    finally:
        done.set()
        watch.join()


def _end_with_others(topic: str, done: threading.Event, failed: Callable[[], str | None]) -> None:
    """Wait for the end of a save, or for a process that cannot write; this one then ends too."""
    while not done.wait(_LOOK_SECONDS):
        if mine := failed():
            _end_not_saved(topic, mine, tell=True)
        if theirs := _client().key_value_dir_get(f"{topic}/failed/"):
            _end_not_saved(topic, f"process {theirs[0][0].rpartition('/')[2]}: {theirs[0][1]}")


_ending = threading.Lock()  # the end is one thread's; another that comes to it waits for it


def _end_not_saved(topic: str, message: str, *, tell: bool = False) -> None:
    """Say it and end, once all know. Process 0 goes last: with it goes the place where they tell each other."""
    with _ending:
        if tell:
            _client().key_value_set(f"{topic}/failed/{jax.process_index()}", message)
        _client().key_value_set(f"{topic}/knows/{jax.process_index()}", "")
        deadline = time.monotonic() + _PARTING_SECONDS
        while time.monotonic() < deadline and len(_client().key_value_dir_get(f"{topic}/knows/")) < jax.process_count():
            time.sleep(_LOOK_SECONDS)
        if is_first():
            time.sleep(2 * _LOOK_SECONDS)
        print(
            f"error: {message} All processes end; free space and start the same commands again.",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(EXIT_NOT_SAVED)  # an ordinary end would wait for the others inside the library


def require_common_folder(folder: Path, *, flag: str) -> None:
    """Checkpoints are written by process 0 and read by all.

    Raises:
      InputError: the processes see different folders under this name.
    """
    if jax.process_count() == 1:
        return
    mark = folder / from_first(lambda: f".hosts-{uuid.uuid4().hex}")
    from_first(mark.touch)

    def look() -> None:
        if not mark.exists():
            raise InputError(
                f"{folder} is not the folder that process 0 sees under this name. All processes need one {flag}: a "
                "disk that all hosts share."
            )

    try:
        everywhere(look)
    finally:
        if is_first():
            mark.unlink()


class Vote:
    """Whether any process was asked to stop: all learn it at the same step.

    The votes of a step are added up on the devices, after its arithmetic, and looked at one step later, so that
    nothing waits for them.
    """

    def __init__(self) -> None:
        self._pending: Any = None
        if jax.process_count() > 1:
            mesh = Mesh(np.array(jax.devices()), ("process",), axis_types=(AxisType.Auto,))
            self._each = NamedSharding(mesh, PartitionSpec("process"))
            self._add = jax.jit(lambda votes: votes.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def cast(self, mine: bool) -> bool:
        """Vote to stop or to go on, once a step in every process; the outcome of the vote before (alone: of this)."""
        if jax.process_count() == 1:
            return mine
        previous = self._pending
        votes = np.full(jax.local_device_count(), mine, np.int32)
        with jax.transfer_guard("allow"):  # a number for each device
            self._pending = self._add(jax.make_array_from_process_local_data(self._each, votes))
        return previous is not None and bool(jax.device_get(previous) > 0)


@contextlib.contextmanager
def explain_lost_hosts() -> Iterator[None]:
    """What a device says when another process is gone, as a message for people.

    Raises:
      HostError: instead of the errors of devices, if this is one of several processes.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise HostError(
            f"process {jax.process_index()} of {jax.process_count()} cannot go on, most likely because another one "
            f"ended (its own message says why): {str(error).splitlines()[0]}. Start all of them again: the "
            "run continues after its last checkpoint."
        ) from error


def leave(code: int) -> None:
    """End this process. All processes of a run end together; one that ends alone does not wait for long."""
    # Asked first: a process that never joined must not start its devices only to end.
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        try:
            _client().wait_at_barrier("icre_jax/leave", _PARTING_SECONDS * 1000)
            jax.distributed.shutdown()
        except jax.errors.JaxRuntimeError:
            # The ordinary end would wait for the others once more, and then abort without the exit code.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


_topics = 0


def _next_topic() -> str:
    """A name for what is told next; all processes count alike, because all come by the same places."""
    global _topics
    _topics += 1
    return f"icre_jax/{_topics}"


def _read(topic: str) -> Any:
    return json.loads(_client().blocking_key_value_get(topic, _WORK_SECONDS * 1000))


def _client() -> Any:
    # JAX has no public name for its store of keys and values; what is public goes through devices, whose collectives
    # give up after half a minute on some backends.
    from jax._src import distributed

    return distributed.global_state.client
