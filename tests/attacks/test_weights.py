"""Networks from elsewhere: published backbones, exports with their JSON, and checkpoints of runs."""

import contextlib
import functools
import json
import shutil
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.checkpoint.following import read_checkpoint
from icre_jax.engine.pretrained import read_backbone, write_backbone
from icre_jax.engine.state import TrainState
from icre_jax.engine.stored import BOX, read_stored
from icre_jax.engine.tensors import read_tensors, write_tensors
from icre_jax.models.resnet import DualStreamResNet
from tests.attacks.harness import Reader

LIKE = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}
METRIC = "all/single/mAP"


@functools.cache
def shapes():
    backbone = DualStreamResNet(depth=18, width=4)
    return jax.eval_shape(
        lambda: backbone.init(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), modality="paired", train=False)
    )


def make_backbone(folder: Path, _) -> None:
    drawn = np.random.default_rng(0)
    trees = jax.tree.map(lambda leaf: drawn.random(leaf.shape, np.float32), shapes())
    write_backbone(folder / "resnet18.safetensors", trees, stem="visible")


def read_published(folder: Path) -> None:
    read_backbone(folder / "resnet18.safetensors", shapes())


def make_arrays(folder: Path, _) -> None:
    write_tensors(folder / "network.safetensors", LIKE, {"format": "np"})


def make_state(step: int) -> TrainState:
    kernel, mean, count = (jax.random.normal(jax.random.key(step + i), (64,)) for i in range(3))
    return TrainState(jnp.int32(step), {"kernel": kernel}, {"mean": mean}, {"count": count})


def make_run(folder: Path, _) -> None:
    with contextlib.closing(Checkpoints(folder, keep_latest=2, best_metric=METRIC)) as opened:
        for step, score in ((3, 0.9), (6, 0.5)):
            opened.save(make_state(step), {"step": step}, {METRIC: score})


def read_run(folder: Path) -> None:
    """As those that evaluate do, and as a run that continues does."""
    like = make_state(0)
    abstract = jax.eval_shape(lambda: like.variables)
    for step in (None, 3):
        read_checkpoint(folder, step, lambda opened, number: opened.restore_variables(number, abstract))
    with contextlib.closing(Checkpoints(folder, keep_latest=2, best_metric=METRIC)) as opened:
        opened.read_facts(6), opened.restore(6, like=like)


READERS = (
    Reader("published backbone (safetensors)", make_backbone, read_published),
    Reader(
        "network (safetensors)", make_arrays, lambda folder: read_tensors(folder / "network.safetensors", LIKE)
    ),
    Reader(
        "export (json, safetensors)",
        lambda folder, _: shutil.copytree(BOX / "synthetic", folder, dirs_exist_ok=True),
        read_stored,
        attacked=(".json", ".safetensors"),
    ),
    Reader("checkpoint (orbax)", make_run, read_run, writes=True),
)  # fmt: skip


def tensors(header: object, data: bytes = b"\0" * 68, size: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + data


def array(shape, begin: int, end: int, kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


SOUND = {"a": array([3, 4], 0, 48), "b": array([5], 48, 68)}
BY_HAND = {
    "a header of 16 EiB": tensors(SOUND, size=2**64 - 1), "a header of 1 GiB": tensors(SOUND, size=2**30),
    "no header": tensors(b""), "a header that nests": tensors(b"[" * 90_000),
    "no object": tensors([1, 2]), "numbers of 5,000 digits": tensors(b'{"a": ' + b"9" * 5000 + b"}"),
    "arrays over each other": tensors(SOUND | {"b": array([5], 28, 48)}),
    "an array beyond the end": tensors(SOUND | {"b": array([5], 48, 2**40)}),
    "an array backwards": tensors(SOUND | {"b": array([5], 68, 48)}),
    "a shape of 2**64": tensors(SOUND | {"a": array([2**32, 2**32], 0, 48)}),
    "a negative shape": tensors(SOUND | {"a": array([-3, -4], 0, 48)}),
    "four thousand dimensions": tensors(SOUND | {"a": array([1] * 4000, 0, 48)}),
    "an unknown type": tensors(SOUND | {"a": array([3, 4], 0, 48, "OBJECT")}),
    "integers": tensors(SOUND | {"a": array([3, 4], 0, 48, "I32")}),
    "half of it": tensors(SOUND, data=b"\0" * 20), "more than it": tensors(SOUND, data=b"\0" * 9000),
    "a name that leads out": tensors(SOUND | {"../../x": array([0], 68, 68)}),
    "orders to a terminal": tensors(SOUND | {"\x1b[2J\x07": array([0], 68, 68)}),
    "ten thousand names": tensors(SOUND | {f"n{i}": array([0], 68, 68) for i in range(10_000)}),
    "other metadata": tensors(SOUND | {"__metadata__": {"x": [1]}}), "not finite": tensors(SOUND, b"\xff" * 68),
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.", "an archive": b"PK\3\4" + b"\0" * 80,
}  # fmt: skip


def test_broken_weights(attack):
    for reader in READERS[:2]:
        attacks = attack(reader)
        for name, content in BY_HAND.items():
            attacks.by_hand(name, attacks.files[0], content)
        assert attacks.failures == {}, reader.name
        assert attacks.most_megabytes < 500


@pytest.mark.parametrize(("reader", "number"), [*zip(READERS, (20, 60, 16, 12), strict=True)], ids=lambda x: str(x))
def test_damaged_files(reader, number, attack):
    attacks = attack(reader)
    if "orbax" not in reader.name:
        attacks.places()
    for i in range(number):
        attacks.mutant(i * 7 if "orbax" in reader.name else i)
    assert attacks.failures == {}
