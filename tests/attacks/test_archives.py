"""Archives of arrays: features of other code bases, replay files, MATLAB files; nothing is unpickled or unpacked."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from icre_jax.data.permutations import read_mat, read_permutations
from icre_jax.evals.scoring import choose_rule, score_files
from icre_jax.training.failure import Failure, read_failure
from tests.attacks.harness import Reader


def features(num: int = 12) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(0)
    return {
        "features": drawn.normal(size=(num, 8)).astype(np.float32),
        "pid": np.arange(num) % 4,
        "camid": np.arange(num) % 2 + 1,
    }


def make_features(folder: Path, _) -> None:
    np.savez(folder / "query.npz", **features())
    np.savez_compressed(folder / "gallery.npz", **features(16))


def read_scores(folder: Path) -> None:
    rule = choose_rule("manifest", exclude_same_camera=False, deduplicate_ids=None)
    score_files(rule, folder / "query.npz", folder / "gallery.npz")


def replay_fields() -> dict[str, np.ndarray]:
    """As `Failure.write` names and writes them."""
    return {
        "step": np.int64(3), "checkpoint_step": np.int64(0), "finding": np.array("loss"),
        "image": np.zeros((4, 8, 4, 3), np.uint8), "label": np.arange(4, dtype=np.int32),
        "modality": np.zeros(4, np.int32), "path": np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        "metric_names": np.array(["loss"]), "metric_values": np.array([np.nan]), "settings": np.array("{}"),
        "data_fingerprint": np.array("f"), "numerics": np.array(""),
    }  # fmt: skip


def make_replay(folder: Path, _) -> None:
    fields = replay_fields()
    metrics = dict(zip(fields.pop("metric_names").tolist(), fields.pop("metric_values").tolist(), strict=True))
    values = {name: value.item() if value.ndim == 0 else value for name, value in fields.items()}
    Failure(metrics=metrics, **values).write(folder / "replay_step_3.npz")


class Trap:
    """Is noticed by the audit hook of `tests/attacks/harness.py` where it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def make_draws(folder: Path, _) -> None:
    drawn = np.random.default_rng(0)
    cell = np.empty((6, 1), object)
    for camera in range(6):
        ids = np.empty((5, 1), object)
        for pid in range(5):
            ids[pid, 0] = np.array([drawn.permutation(3) + 1 for _ in range(10)], np.uint8)
        cell[camera, 0] = ids
    savemat(folder / "plain.mat", {"rand_perm_cam": cell})
    savemat(folder / "packed.mat", {"rand_perm_cam": cell}, do_compression=True)


def read_draws(folder: Path) -> None:
    read_mat(folder / "plain.mat")
    read_mat(folder / "packed.mat")


def make_stored_draws(folder: Path, _) -> None:
    rows = [[pid, 1, [[2, 1, 3]] * 10] for pid in range(4)]
    text = f'{{"source": "exp/rand_perm_cam.mat", "pid_camid_trials": {rows}}}'
    (folder / "gallery_permutations.json").write_text(text)


READERS = (
    Reader("features (npz)", make_features, read_scores),
    Reader("replay file (npz)", make_replay, lambda folder: read_failure(folder / "replay_step_3.npz")),
    Reader("gallery draws (mat)", make_draws, read_draws),
    Reader("gallery draws (json)", make_stored_draws, lambda folder: read_permutations(folder)),
)


def archive(how: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as opened:
        for name, content in members.items():
            opened.writestr(name.replace("__", "/") + ".npy", content)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """A .npy with any header."""
    raw = text.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + size + raw + data


def shaped(shape: str, descr: str = "'<f4'", data: bytes = b"\0" * 64) -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}", data)


def directory_says(content: bytes, size: int) -> bytes:
    """An archive whose directory lies about the unpacked size of its first member."""
    place = content.index(b"PK\1\2")
    return content[: place + 24] + struct.pack("<I", size) + content[place + 28 :]


def broken_archives() -> dict[str, bytes]:
    sound = {name: npy(array) for name, array in features().items()}
    some, trap = np.zeros((2, 8), np.float32), np.empty(1, object)
    trap[0] = Trap()
    deep = "(" * 3000 + ")" * 3000
    return {
        "a pickle": pickle.dumps(Trap()),
        "a pickle as an array": archive(**sound | {"features": npy(trap)}),
        "a pickle as camid": archive(**sound | {"camid": npy(trap)}),
        "a pickle nobody asked for": archive(**sound, more=npy(trap)),
        "four exbibytes": archive(**sound | {"features": shaped("(1099511627776, 1048576)")}),
        "16 GiB that are not there": archive(**sound | {"features": shaped("(536870912, 8)")}),
        "a negative size": archive(**sound | {"features": shaped("(-4, 8)")}),
        "a size of 5,000 digits": archive(**sound | {"features": shaped(f"({'9' * 5000}, 8)")}),
        "a size of no dimension": archive(**sound | {"features": shaped("()")}),
        "a hundred dimensions": archive(**sound | {"features": shaped(f"({'1, ' * 100})")}),
        "a number of words": archive(**sound | {"features": shaped("('a', 8)")}),
        "a header that nests": archive(**sound | {"features": header(deep)}),
        "a header of operations": archive(**sound | {"features": header("{'descr': 9**9**9}")}),
        "a header of code": archive(**sound | {"features": header("__import__('os').system('true')")}),
        "a header of 64 KiB": archive(**sound | {"features": shaped("(2, 8)" + " " * 65_000)}),
        "a header of version 9": archive(**sound | {"features": header("{}", version=9)}),
        "records": archive(**sound | {"features": shaped("(2,)", "[('a', '<f4'), ('b', '|O')]")}),
        "texts of 2 GiB": archive(**sound | {"features": shaped("(1,)", "'<U536870911'")}),
        "nothing but NaN": archive(**sound | {"features": npy(np.full((12, 8), np.nan, np.float32))}),
        "infinite": archive(**sound | {"features": npy(np.full((12, 8), np.inf, np.float32))}),
        "larger than float32": archive(**sound | {"features": npy(np.full((12, 8), 1e300))}),
        "complex numbers": archive(**sound | {"features": npy(np.zeros((12, 8), np.complex64))}),
        "dates": archive(**sound | {"pid": npy(np.zeros(12, "M8[s]"))}),
        "another number of identities": archive(**sound | {"pid": npy(np.arange(3))}),
        "ids above 2**63": archive(**sound | {"pid": npy(np.full(12, 2**64 - 1, np.uint64))}),
        "negative ids": archive(**sound | {"pid": npy(np.full(12, -(2**63)))}),
        "not one row": archive(**sound | {"features": npy(some[:0])}),
        "no archive member is an array": archive(**dict.fromkeys(sound, b"x")),
        "320 MiB of zeros in a few": archive(
            zipfile.ZIP_DEFLATED, **sound | {"features": shaped("(10485760, 8)", data=b"\0" * 10485760 * 32)}
        ),
        "a directory that says 4 GiB": directory_says(archive(**sound), 2**32 - 1),
        "members that lead out": archive(**sound, **{"..__..__evil": npy(some)}),
        "ten thousand members": archive(**sound, **{f"m{i}": b"" for i in range(10_000)}),
        "a member twice": archive(**sound) + archive(**sound),
        "only an end": b"PK\5\6" + b"\0" * 18,
        "an end that points everywhere": b"PK\5\6\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0",
        "one array, no archive": npy(some),
        "text": b"features,pid,camid\n1,2,3\n",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_broken_archives(attack):
    attacks, replay = attack(READERS[0]), attack(READERS[1])
    for name, content in broken_archives().items():
        attacks.by_hand(name, "query.npz", content)
        replay.by_hand(name, "replay_step_3.npz", content)
    assert attacks.failures == {}
    assert replay.failures == {}
    assert max(attacks.most_megabytes, replay.most_megabytes) < 3000


@pytest.mark.parametrize(("reader", "number"), [*zip(READERS, (60, 40, 60, 40), strict=True)], ids=lambda x: str(x))
def test_damaged_files(reader, number, attack):
    attacks = attack(reader)
    attacks.places()
    for i in range(number):
        attacks.mutant(i)
    assert attacks.failures == {}
