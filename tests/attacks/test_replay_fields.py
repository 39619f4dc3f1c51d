"""A replay file of somebody: every field has its kind, its shape and its bounds, whatever else is in order."""

import re

import numpy as np

from tests.attacks.test_archives import READERS, archive, npy, replay_fields

READER = next(reader for reader in READERS if reader.name.startswith("replay"))
KINDS = {
    "whole": np.int64(1), "a fraction": np.float64(1), "a truth value": np.True_, "a text": np.array("1"),
    "bytes": np.array(b"1"), "a date": np.datetime64(1, "s"), "complex": np.complex64(1), "no row": np.zeros(0),
    "a row of one": np.ones(1, np.int64), "a row": np.ones(4), "a row of texts": np.array(["1"] * 4),
    "unsigned": np.ones(4, np.uint32), "long": np.ones(4, np.int64), "other bytes first": np.ones(4, ">i4"),
    "a row in a row": np.ones((1, 4), np.int32), "an image": np.zeros((8, 4, 3), np.uint8),
    "images of no pixel": np.zeros((4, 0, 4, 3), np.uint8), "images with alpha": np.zeros((4, 8, 4, 4), np.uint8),
    "images of floats": np.zeros((4, 8, 4, 3), np.float32), "three images": np.zeros((3, 8, 4, 3), np.uint8),
}  # fmt: skip
# Field -> kinds above that it may have: what the docstring of `Failure` says, in other words.
FITS = {
    "step": {"whole"}, "checkpoint_step": {"whole"}, "finding": {"a text"}, "settings": {"a text"},
    "data_fingerprint": {"a text"}, "numerics": {"a text"}, "path": {"a row of texts"},
}  # fmt: skip
BOUNDS = [
    ("step", np.int64(0), "step is 0; a whole number from 1 to 2,147,483,647"),
    ("step", np.int64(2**31), "step is 2147483648"), ("step", np.uint64(2**64 - 1), "step is 18446744073709551615"),
    ("checkpoint_step", np.int64(3), "checkpoint_step is 3; a whole number from 0 to 2"),
    ("checkpoint_step", np.int64(-1), "checkpoint_step is -1"),
    ("finding", np.array("x" * 1001), "finding has 1,001 characters; at most 1,000"),
    ("settings", np.array("x" * (2**20 + 1)), "settings has 1,048,577 characters"),
    ("data_fingerprint", np.array("f" * 201), "data_fingerprint has 201 characters"),
    ("numerics", np.array("{" * 100_001), "numerics has 100,001 characters"),
    ("label", np.array([0, 1, 2, -1], np.int32), "label holds -1; classes count from 0"),
    ("label", np.zeros(0, np.int32), "a batch of 0 images; 1 to 65,536"),
    ("label", np.zeros(65_537, np.int32), "a batch of 65,537 images"),
    ("modality", np.array([0, 1, 2, 0], np.int32), "modality holds other numbers than 0"),
    ("modality", np.array([0, -1, 1, 0], np.int32), "modality holds other numbers than 0"),
    ("path", np.array(["a", "b", "c", "d" * 4097]), "path holds a text of 4,097 characters; at most 4,096"),
    ("metric_names", np.array(["l" * 201]), "metric_names holds a text of 201 characters"),
    ("metric_names", np.array(["loss", "loss"]), "float64 [N] is needed"),
    ("metric_names", np.array("loss"), "metric_names is <U4 []; text [N] is needed"),
    ("metric_values", np.float64(1), "metric_values is float64 []"),
]  # fmt: skip


def test_every_field_of_a_replay_file_has_its_kind_and_its_bounds(attack):
    attacks, fields = attack(READER), replay_fields()

    def said(**changes) -> str | None:
        content = archive(**{name: npy(np.asarray(value)) for name, value in (fields | changes).items()})
        outcome = attacks.by_hand(str(changes)[:60], "replay_step_3.npz", content)
        assert outcome.wrong == ""
        assert outcome.said is None or outcome.said.endswith("left in its workdir.")
        return outcome.said

    assert said() is None
    for name in fields:
        for kind, value in KINDS.items():
            message = said(**{name: value})
            assert (message is None) == (kind in FITS.get(name, ())), (name, kind, message)
            assert message is None or re.search(r"is not a replay file \(\w+ (is|has|holds) ", message), message
    for name, value, words in BOUNDS:
        assert words in said(**{name: value})
    twice = {"metric_names": np.array(["loss", "loss"]), "metric_values": np.ones(2)}
    assert "2 metrics; 1 to 1,000 of different names" in said(**twice)
    none = {"metric_names": np.array([], "U1"), "metric_values": np.zeros(0)}
    assert "it has 0 metrics" in said(**none)
    for name in fields:
        content = archive(**{other: npy(np.asarray(value)) for other, value in fields.items() if other != name})
        missing = attacks.by_hand(f"no {name}", "replay_step_3.npz", content).said
        # Versions before did not say where they ran.
        assert missing is None if name == "numerics" else f"it holds no array '{name}'" in missing
    assert attacks.failures == {}
