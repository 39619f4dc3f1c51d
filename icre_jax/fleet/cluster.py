"""Ray: started for one command on this machine, or the cluster that --ray_address names.

What is started here is gone when the command ends, with its folder of logs. Ray listens at all addresses of a machine,
also for one machine, and whoever may talk to it may run programs: what is started here gets a secret of its own, which
no other program knows. Its dashboard and its reports of usage to others are off.
"""

import argparse
import contextlib
import importlib.util
import logging
import os
import re
import secrets
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from icre_jax.errors import HostError, InputError

_CONNECT_SECONDS = 5
_PLACE_SECONDS = 300  # that a worker may wait for its place in a cluster
_LONGEST_FOLDER = 40  # characters; Ray puts sockets below it, whose names may have 107
_MOST_WORKERS = 10_000
_SECRET = secrets.token_hex(32)  # one for a process, as Ray reads it once
# Set before Ray is imported; of a cluster that is there, its own settings count.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
}


@dataclass(frozen=True)
class Cluster:
    """Where workers are started, and how many.

    Attributes:
      address: HOST:PORT of the head of a cluster; None for this machine alone.
      num_workers: None for as many as there are GPUs (embedding) or machines (searching).
    """

    address: str | None = None
    num_workers: int | None = None


@dataclass(frozen=True)
class Place:
    """What a worker gets: this many of them, with so many CPUs and GPUs each."""

    num_workers: int
    num_cpus: int
    num_gpus: int

    @property
    def resources(self) -> dict[str, int]:
        """Of one worker, as Ray takes them."""
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--num_workers and --ray_address."""
    parser.add_argument("--num_workers", type=int, metavar="N", help="of Ray; default: one per GPU, or per machine")
    parser.add_argument("--ray_address", metavar="HOST:PORT", help="head of a Ray cluster; default: this machine alone")


def read_flags(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> Cluster | None:
    """What the flags say, once it is known that Ray can be used; None for another engine.

    Raises:
      InputError: Ray is not installed, nothing answers at the address, or a number of workers that cannot be.
    """
    if flags.engine != "ray":
        if flags.num_workers is not None or flags.ray_address is not None:
            parser.error("--num_workers and --ray_address go with --engine ray")
        return None
    if flags.num_workers is not None and not 1 <= flags.num_workers <= _MOST_WORKERS:
        raise InputError(f"--num_workers is {flags.num_workers}; it must be 1 or more, and at most {_MOST_WORKERS:,}.")
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "--engine ray needs the package ray, which is not installed: pip install 'icre_jax[ray]'. Or leave "
            "--engine out: one machine gives the same answers."
        )
    if flags.ray_address is not None:
        _require_answer(flags.ray_address)
    return Cluster(flags.ray_address, flags.num_workers)


def _require_answer(address: str) -> None:
    found = re.fullmatch(r"([A-Za-z0-9_.-]+):(\d{1,5})", address)
    if not found or not 0 < int(found[2]) < 2**16:
        raise InputError(f"--ray_address is {address!r}; give HOST:PORT of the head, as `ray start --head` prints it.")
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"Nothing answers at --ray_address {address} ({error}). Start the cluster (`ray start --head`), or leave "
            "the flag out for workers on this machine."
        ) from error


@contextlib.contextmanager
def open_cluster(cluster: Cluster, *, use_gpus: bool) -> Iterator[Place]:
    """Ray for as long as the context lasts.

    Args:
      cluster: where.
      use_gpus: give each worker a GPU, if there are any.

    Raises:
      InputError: it cannot be started or joined, or has no room for so many workers.
      HostError: a worker was lost, or got no place.
    """
    with contextlib.ExitStack() as stack:
        ray = _start(cluster, stack)
        try:
            yield _find_place(cluster, ray, use_gpus=use_gpus)
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
            raise HostError(f"A worker of Ray was lost ({_first_line(error)}). Start the command again.") from error
        except ray.exceptions.GetTimeoutError as error:
            raise HostError(
                f"The cluster {cluster.address or 'on this machine'} had no place for all workers within "
                f"{_PLACE_SECONDS} s: others may use it. Ask for fewer with --num_workers, or start again later."
            ) from error


def wait_for_places(ray: Any, ready: Sequence[Any]) -> None:
    """Wait until workers that have just been started have their places; for their first work there is no limit.

    Args:
      ray: the module.
      ready: an answer of each worker that takes it no time.
    """
    ray.get(list(ready), timeout=_PLACE_SECONDS)


def _start(cluster: Cluster, stack: contextlib.ExitStack) -> Any:
    own = {} if cluster.address else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _SECRET}
    for name, value in {**_QUIET, **own}.items():
        stack.callback(_restore, name, os.environ.get(name))
        os.environ[name] = value
    import ray
    import ray.exceptions

    where: dict[str, Any] = {"address": cluster.address}
    if cluster.address is None:
        folder = tempfile.gettempdir()
        where = {
            "address": "local",  # whatever RAY_ADDRESS says
            "include_dashboard": False,
            "num_cpus": max(os.cpu_count() or 1, cluster.num_workers or 1),
            "_temp_dir": stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="icre_ray_",
                    dir=folder if len(folder) <= _LONGEST_FOLDER else "/tmp",
                    ignore_cleanup_errors=True,
                )
            ),
        }
    stack.callback(ray.shutdown)
    try:
        with warnings.catch_warnings():
            # JAX warns of a fork, for what is then run might wait for its threads. Ray's only starts other programs.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds: versions that differ, ports, a missing secret
        raise InputError(
            f"Ray could not be {'joined at ' + cluster.address if cluster.address else 'started'}: "
            f"{_first_line(error)} All machines need the same versions of Python, Ray and icre_jax."
        ) from error
    return ray


def _find_place(cluster: Cluster, ray: Any, *, use_gpus: bool) -> Place:
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    cpus, gpus = (int(sum(machine.get(kind, 0) for machine in machines)) for kind in ("CPU", "GPU"))
    on_gpus = use_gpus and gpus > 0
    most = gpus if on_gpus else cpus
    number = cluster.num_workers or (gpus if on_gpus else len(machines))
    if not 0 < number <= most:
        raise InputError(
            f"--num_workers is {number}; this cluster has {most} {'GPUs' if on_gpus else 'CPUs'}, and a worker takes "
            "one of them."
        )
    # So few that they fit wherever they are put.
    on_one = -(-number // len(machines))
    smallest = int(min(machine["CPU"] for machine in machines))
    return Place(number, max(1, smallest // on_one), int(on_gpus))


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]
