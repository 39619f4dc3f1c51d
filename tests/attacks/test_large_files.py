"""Files of up to 50 MB, the worst that are known of each class, in memory below 4 GiB.

pytest -m slow -n 0 -s tests/attacks/test_large_files.py
"""

import io
import math
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from scipy.io import savemat

from tests.attacks import harness
from tests.attacks.mutants import all_readers
from tests.attacks.test_archives import archive, header, npy, replay_fields
from tests.attacks.test_weights import array, tensors

LARGEST = 50_000_000  # bytes


def repeated(
    unit: bytes, *, begin: bytes = b"", end: bytes = b"", separator: bytes = b"", most: int = LARGEST
) -> bytes:
    """As often as fits."""
    number = (most - len(begin) - len(end) + len(separator)) // (len(unit) + len(separator))
    return begin + separator.join([unit] * number) + end


def numbered(form: str, *, begin: str = "", end: str = "", most: int = LARGEST) -> bytes:
    """`form` with 0, 1, 2, ... in place of {}, as often as fits."""
    number = (most - len(begin) - len(end)) // (len(form.format(9_999_999)))
    return (begin + "".join(form.format(i) for i in range(number)) + end).encode()


def packed(sound: dict[str, np.ndarray], name: str, kind: str, shape: tuple[int, ...], times: int) -> bytes:
    """An archive with an array that deflate makes `times` as small: noise, then zeros; never whole in memory here."""
    size, stream = math.prod(shape) * np.dtype(kind).itemsize, io.BytesIO()
    # What zeros become, and these numbers, none of which is not finite.
    length = int((size / times - size / 230) / 0.88)
    noise = np.random.default_rng(0).integers(0, 120, length, np.uint8).tobytes()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        with opened.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(header(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"))
            member.write(noise)
            for start in range(len(noise), size, 2**20):
                member.write(b"\0" * min(2**20, size - start))
        for other, array in sound.items():
            opened.writestr(f"{other}.npy", npy(np.asarray(array)))
    return stream.getvalue()


def packed_features(times: int) -> bytes:
    """Of as many rows as an archive of 50 MB may claim."""
    rows = (LARGEST - 2 * 10**6) * times // (64 * 4)
    sound = {"pid": np.ones(rows, np.uint8), "camid": np.zeros(rows, np.uint8)}
    return packed(sound, "features", "<f4", (rows, 64), times)


def packed_replay(times: int) -> bytes:
    side = int(((LARGEST - 2 * 10**6) * times / 12) ** 0.5)
    sound = {name: value for name, value in replay_fields().items() if name != "image"}
    return packed(sound, "image", "|u1", (4, side, side, 3), times)


def many_rows() -> bytes:
    """Features of one number, which are all alike."""
    rows = LARGEST // 7
    ones = {"features": np.ones((rows, 1), np.float32), "pid": np.ones(rows, np.uint8), "camid": np.zeros(rows, "u1")}
    return archive(**{name: npy(value) for name, value in ones.items()})


def many_matrices() -> bytes:
    cell = np.empty((300, 1), object)
    for row in range(300):
        cell[row, 0] = np.empty((300, 1), object)
        for column in range(300):
            cell[row, 0][column, 0] = np.zeros((1, 1), np.uint8)
    stream = io.BytesIO()
    savemat(stream, {"rand_perm_cam": cell})
    return stream.getvalue()


def large_matrix() -> bytes:
    stream = io.BytesIO()
    savemat(stream, {"rand_perm_cam": np.zeros((4_000_000, 4), np.uint64)}, do_compression=True)
    return stream.getvalue()


MANIFEST, IMAGE = "path,pid,camid,modality,split\n", b"images/train_0.png,1,1,visible,train\n"
# (class, what, file, content)
CASES: list[tuple[str, str, str, Callable[[], bytes]]] = [
    ("features (npz)", "packed 90 times", "query.npz", lambda: packed_features(90)),
    ("features (npz)", "packed 14 times", "query.npz", lambda: packed_features(14)),
    ("features (npz)", "many rows", "query.npz", many_rows),
    ("features (npz)", "many rows in the gallery", "gallery.npz", many_rows),
    ("replay file (npz)", "packed 90 times", "replay_step_3.npz", lambda: packed_replay(90)),
    ("replay file (npz)", "packed 14 times", "replay_step_3.npz", lambda: packed_replay(14)),
    ("gallery draws (mat)", "many matrices", "plain.mat", many_matrices),
    ("gallery draws (mat)", "a large one", "plain.mat", large_matrix),
    *(
        (name, what, file, content)
        for name, file in (
            ("gallery draws (json)", "gallery_permutations.json"), ("configs (json)", "config.json"),
            ("results (json)", "results.json"), ("calibration (json)", "calibration.json"),
            ("mark of a rendered tree (json)", None), ("index of a gallery", "gallery/index.json"),
            ("export (json, safetensors)", "config.json"), ("export (json, safetensors)", "provenance.json"),
        )
        for what, content in (
            ("empty objects", lambda: repeated(b"{}", begin=b"[", end=b"]", separator=b",", most=2**23)),
            ("many names", lambda: numbered('"{}":0,', begin="{", end='"z":0}', most=2**25)),
            ("many names of few bytes", lambda: numbered('"{}":0,', begin="{", end='"z":0}', most=2**20)),
            ("one text", lambda: b'{"a":"' + b"x" * (2**25 - 10) + b'"}'),
        )
    ),
    ("log of a run (json lines)", "empty objects", "metrics.jsonl", lambda: repeated(b"{}\n")),
    ("log of a run (json lines)", "many names", "metrics.jsonl", lambda: numbered('{{"{}":0}}\n')),
    ("log of a run (json lines)", "empty lines", "metrics.jsonl", lambda: b"\n" * LARGEST),
    ("manifest (csv)", "short lines", "manifest.csv", lambda: numbered("{},\n", begin=MANIFEST, most=45_000_000)),
    ("manifest (csv)", "many images", "manifest.csv", lambda: numbered("{},1,1,visible,train\n", begin=MANIFEST)),
    ("manifest (csv)", "one image", "manifest.csv", lambda: repeated(IMAGE, begin=MANIFEST.encode())),
    ("list of images (txt)", "many", "images.txt", lambda: numbered("{}\n", most=30_000_000)),
    ("list of images (txt)", "one", "images.txt", lambda: repeated(b"a.png\n", most=25_000_000)),
    ("list of sums (txt)", "many", "SHA256SUMS", lambda: numbered("0" * 64 + "  {}\n", most=2**24)),
    *(
        ("network (safetensors)", what, "network.safetensors", content)
        for what, content in (
            ("many names", lambda: tensors({f"{i}": array([0], 68, 68) for i in range(700_000)})),
            ("one name", lambda: tensors({"x" * 49_000_000: array([0], 68, 68)})),
            ("many facts", lambda: tensors({"__metadata__": {f"{i}": "" for i in range(3_000_000)}})),
            ("brackets", lambda: tensors(b"[" * 49_000_000)),
            ("dimensions", lambda: tensors({"a": array([1] * 15_000_000, 0, 4)})),
        )
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[1]}")
def test_a_large_file(case, attack, monkeypatch):
    monkeypatch.setattr(harness, "SECONDS", 1200)
    monkeypatch.setattr(harness, "PATIENCE", 1200)
    name, what, file, make = case
    attacks = attack(all_readers()[name])
    content = make()
    assert len(content) <= LARGEST
    outcome = attacks.by_hand(what, file or attacks.files[0], content, sealed=len(content) < 2**21)
    said = (outcome.said or "read")[:150]
    print(f"\n{name}, {what}, {len(content) / 1e6:.1f} MB: {outcome.megabytes} MiB; {said!r}", flush=True)
    assert outcome.wrong == ""
