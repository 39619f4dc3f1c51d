"""Balanced sampling: properties over many shapes, and that it is a function of (seed, batch)."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.data.plan import BalancedPlan, num_batches_per_epoch
from icre_jax.data.records import SplitIndex
from icre_jax.errors import InputError


def make_index(counts: list[tuple[int, int]]) -> SplitIndex:
    """Identities 10, 20, ... with the given numbers of visible and infrared images, shuffled."""
    pid = np.concatenate([np.full(v + i, 10 * (n + 1)) for n, (v, i) in enumerate(counts)])
    modality = np.concatenate([np.r_[np.zeros(v), np.ones(i)] for v, i in counts]).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(pid))
    pid, modality = pid[order], modality[order]
    return SplitIndex(path=np.array([f"{n}.jpg" for n in range(len(pid))]), pid=pid, camid=pid * 0, modality=modality)


def make_plan(index, ids=3, images=2, batches=20, seed=0) -> BalancedPlan:
    return BalancedPlan(index, num_ids_per_batch=ids, num_images_per_id=images, num_batches=batches, seed=seed)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=9),
    data=st.data(),
)
def test_every_batch_is_balanced_and_every_identity_comes_once_a_pass(counts, data):
    index = make_index(counts)
    ids = data.draw(st.integers(1, len(counts)))
    images = data.draw(st.integers(1, 4))
    plan = make_plan(index, ids, images, batches=3 * len(counts), seed=data.draw(st.integers(0, 5)))
    size = 2 * ids * images
    assert plan.batch_size == size
    visits = []
    for batch in range(plan.num_batches):
        slots = plan.batch(batch)
        assert [slot.position for slot in slots] == list(range(batch * size, (batch + 1) * size))
        records = np.array([slot.record for slot in slots])
        labels = np.array([slot.label for slot in slots])
        # Batch order: visible, infrared, visible, ...; pairs share their identity.
        assert (index.modality[records] == np.arange(size) % 2).all()
        assert (labels[0::2] == labels[1::2]).all()
        assert (index.pid[records] == plan.class_pids[labels]).all()
        # P different identities, 2K rows each.
        assert sorted(collections.Counter(labels.tolist()).values()) == [2 * images] * ids
        visits += labels[:: 2 * images].tolist()
        for label in set(labels.tolist()):
            for modality in (0, 1):
                mine = records[(labels == label) & (np.arange(size) % 2 == modality)]
                available = counts[label][modality]
                uses = collections.Counter(mine.tolist()).values()
                # Without replacement where there are enough; evenly used where not.
                assert len(uses) == min(images, available)
                assert max(uses) - min(uses) <= 1
    for first in range(0, len(visits) - len(counts) + 1, len(counts)):
        assert sorted(visits[first : first + len(counts)]) == list(range(len(counts)))


def test_a_longer_plan_begins_with_the_shorter_one():
    index = make_index([(4, 3)] * 7)
    short, long = make_plan(index, batches=4), make_plan(index, batches=40)
    assert [short.batch(i) for i in range(4)] == [long.batch(i) for i in range(4)]


def test_the_seed_decides():
    index = make_index([(4, 3)] * 7)
    slots = {seed: [make_plan(index, seed=seed).batch(i) for i in range(5)] for seed in (0, 1)}
    assert slots[0] == [make_plan(index, seed=0).batch(i) for i in range(5)]
    assert slots[0] != slots[1]


def test_too_few_identities_for_a_batch():
    with pytest.raises(InputError, match=r"num_ids_per_batch \(P\) is 8.* 7 identities; P may be 1 \.\. 7"):
        make_plan(make_index([(1, 1)] * 7), ids=8)


def test_identities_without_a_modality_are_named():
    with pytest.raises(InputError, match=r"infrared ones: \[20, 40\]"):
        make_plan(make_index([(1, 1), (2, 0), (1, 1), (3, 0)]), ids=2)


def test_epoch_length_follows_the_larger_modality():
    index = make_index([(5, 2), (6, 1)])  # 11 visible, 3 infrared
    assert num_batches_per_epoch(index, num_ids_per_batch=2, num_images_per_id=2) == 3
    assert num_batches_per_epoch(index, num_ids_per_batch=1, num_images_per_id=1) == 11
