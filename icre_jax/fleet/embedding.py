"""Images to vectors by several processes, with Ray Data: batches go to whoever is free, rows come back in order."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import icre_jax
from icre_jax.errors import InputError, UnusableImagesError
from icre_jax.fleet.cluster import Cluster, open_cluster


def leave_devices_to_workers() -> None:
    """Keep this process off the GPUs: JAX takes most of the memory of those that it sees."""
    jax.config.update("jax_platforms", "cpu")


class _Embedder:
    """The network in a process of its own; what is wrong with images is returned, not raised."""

    def __init__(self, network: str, given: dict[str, Any], model_hash: str, flags: dict[str, Any]):
        self._network, self._given, self._model_hash, self._flags = network, given, model_hash, flags
        self._net: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answer = {"first": batch["first"], "number": len(batch["files"]), "vectors": b"", "unusable": [], "refused": ""}
        try:
            vectors = self._load().embed(list(batch["files"]), **self._flags)
            return answer | {"vectors": vectors.tobytes()}
        except UnusableImagesError as error:
            return answer | {"unusable": error.findings}
        except InputError as error:
            return answer | {"refused": str(error)}

    def _load(self) -> Any:
        if self._net is None:
            net = icre_jax.load(self._network, **self._given)
            if net.model_hash != self._model_hash:
                raise InputError(f"{self._network} is another network there ({net.model_hash[:12]})")
            self._net = net
        return self._net


def embed_on_workers(
    net: Any,
    files: Sequence[Path],
    *,
    modality: str,
    batch_size: int,
    flip: bool,
    progress: Callable[[int, int], None],
    cluster: Cluster,
    step: int | None = None,
) -> np.ndarray:
    """What `net.embed` gives, by several processes; its batches are theirs, so that the numbers are the same.

    Args:
      net: of `icre_jax.load`; all machines see its folder, and the images, at the same paths.
      files: images.
      modality, batch_size, flip, progress: as of `LoadedNetwork.embed`.
      cluster: where the processes are started.
      step: as `icre_jax.load` was given it.

    Returns:
      [N, D] float32, rows in the order of `files`.

    Raises:
      InputError: as `LoadedNetwork.embed`; there is no such cluster; or a machine has another network at that path.
      HostError: a process was lost.
    """
    paths = [str(file.resolve()) for file in files]
    batches = [
        {"first": first, "files": paths[first : first + batch_size]} for first in range(0, len(paths), batch_size)
    ]
    flags = {"modality": modality, "batch_size": batch_size, "flip": flip}
    vectors = np.empty((len(paths), net.size), np.float32)
    unusable: dict[int, list[str]] = {}
    done = 0
    with open_cluster(cluster, use_gpus=True) as place:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        embedded = ray.data.from_items(batches).map(
            _Embedder,
            fn_constructor_args=(net.place, {"step": step, "max_pixels": net.max_pixels}, net.model_hash, flags),
            compute=ray.data.ActorPoolStrategy(size=place.num_workers),
            **place.resources,
        )
        for answer in embedded.iter_rows():
            if answer["refused"]:
                raise InputError(f"A worker cannot embed: {answer['refused']}")
            first, number = answer["first"], answer["number"]
            if len(answer["unusable"]):
                unusable[first] = list(answer["unusable"])
            else:
                rows = np.frombuffer(answer["vectors"], np.float32).reshape(number, net.size)
                vectors[first : first + number] = rows
            done += number
            progress(done, len(paths))
    if unusable:
        raise UnusableImagesError([finding for first in sorted(unusable) for finding in unusable[first]], len(paths))
    return vectors
