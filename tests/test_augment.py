"""Augmentation: what each step does to pixels, and how often."""

import numpy as np
import pytest

from icre_jax.data import augment


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 256, (24, 12, 3), dtype=np.uint8)


def many(function, image, times=400, **kwargs):
    return [function(image, np.random.default_rng(seed), **kwargs) for seed in range(times)]


def test_pad_and_crop_shifts(image):
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
    shifts = set()
    for result in many(augment.pad_and_crop, image, pad=3):
        found = [
            (top, left)
            for top in range(7)
            for left in range(7)
            if np.array_equal(padded[top : top + 24, left : left + 12], result)
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 49
    assert np.array_equal(augment.pad_and_crop(image, np.random.default_rng(0), pad=0), image)


def test_padding_may_be_larger_than_the_image(image):
    small = image[:4, :3]
    padded = np.pad(small, ((9, 9), (9, 9), (0, 0)))
    for seed in range(100):
        top, left = np.random.default_rng(seed).integers(0, 19, size=2)
        found = augment.pad_and_crop(small, np.random.default_rng(seed), pad=9)
        assert np.array_equal(found, padded[top : top + 4, left : left + 3])


def test_flip_mirrors_as_often_as_asked(image):
    results = many(augment.flip, image, probability=0.25)
    flipped = [np.array_equal(result, image[:, ::-1]) for result in results]
    assert all(f or np.array_equal(r, image) for f, r in zip(flipped, results, strict=True))
    assert 60 < sum(flipped) < 140


def test_exchange_channels_copies_one_channel_or_gray(image):
    gray = np.rint(image.astype(np.float64) @ [0.2989, 0.5870, 0.1140])
    counts = dict.fromkeys(["same", 0, 1, 2, "gray"], 0)
    for result in many(augment.exchange_channels, image, probability=0.5):
        if np.array_equal(result, image):
            counts["same"] += 1
            continue
        assert np.array_equal(result[..., 0], result[..., 1])
        assert np.array_equal(result[..., 0], result[..., 2])
        match = [c for c in range(3) if np.array_equal(result[..., 0], image[..., c])]
        if match:
            counts[match[0]] += 1
        else:
            assert np.abs(result[..., 0] - gray).max() <= 1
            counts["gray"] += 1
    assert 150 < counts["same"] < 250
    assert all(25 < counts[kind] < 85 for kind in (0, 1, 2, "gray"))


def test_erase_fills_one_rectangle_within_its_ranges(image):
    area, aspect = (0.1, 0.3), (0.5, 2.0)
    results = many(augment.erase, image, probability=0.6, area=area, aspect=aspect)
    hit = 0
    for result in results:
        changed = (result != image).any(axis=2)
        if not changed.any():
            continue
        hit += 1
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == augment.ERASED).all()
        height, width = box.shape[:2]
        assert area[0] - 0.05 < height * width / image[..., 0].size < area[1] + 0.05
        assert aspect[0] * 0.75 < height / width < aspect[1] * 1.35
    assert 190 < hit < 290
    assert np.array_equal(
        augment.erase(image, np.random.default_rng(1), probability=0.0, area=area, aspect=aspect), image
    )


def test_nothing_changes_its_input(image):
    before = image.copy()
    many(augment.pad_and_crop, image, times=5, pad=2)
    many(augment.exchange_channels, image, times=5, probability=1.0)
    many(augment.erase, image, times=5, probability=1.0, area=(0.1, 0.3), aspect=(0.5, 2.0))
    assert np.array_equal(image, before)
