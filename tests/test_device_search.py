"""Several devices search as one machine does, bit for bit. Simulated devices need a process of their own."""

import os
import subprocess
import sys

import numpy as np
import pytest

from icre_jax.engine.device_search import search_on_devices
from icre_jax.errors import InputError
from tests.conftest import ROOT

SCRIPT = """
from tests.test_retrieval_search import near_ties
import jax, numpy as np
from icre_jax.engine import device_search as module
from icre_jax.retrieval.search import search

assert len(jax.local_devices()) == 4
asked_again = []
def numpy_search(queries, gallery, *, top):
    asked_again.append(len(queries))
    return search(queries, gallery, top=top)
module.search = numpy_search

rng = np.random.default_rng(0)
def compare(queries, gallery, top, share_elements, block=256):
    module._SHARE_ELEMENTS, module._BLOCK_QUERIES = share_elements, block
    asked_again.clear()
    found, one = module.search_on_devices(queries, gallery, top=top), search(queries, gallery, top=top)
    np.testing.assert_array_equal(found.indices, one.indices)
    assert found.similarities.tobytes() == one.similarities.tobytes()
    assert found.similarities.dtype == np.float32 and found.indices.dtype == np.int64
    return sum(asked_again)

queries = rng.standard_normal((7, 24)).astype(np.float32)
gallery = rng.standard_normal((1001, 24)).astype(np.float16)
assert compare(queries, gallery, 10, 2**20) == 0             # one round
assert compare(queries, gallery, 10, 60 * 24, block=4) == 0  # several rounds, the last with padding; two blocks
assert compare(queries, gallery.astype(np.float32), 5, 2**20) == 0
compare(queries, gallery, 2000, 60 * 24, block=4)            # all rows
compare(queries, gallery[:3], 10, 2**20)                     # fewer rows than devices
compare(rng.integers(-1, 2, (5, 24)).astype(np.float32), rng.integers(-1, 2, (600, 24)).astype(np.float16), 9, 2**20)
# More near-ties than candidates: devices cannot tell, NumPy is asked.
assert compare(queries, near_ties(rng, 900, 24), 5, 2**20) > 0
print("same")
"""


def test_four_devices_find_what_one_machine_finds():
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=ROOT, env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout == "same\n"


def test_bad_input():
    gallery = np.ones((5, 3), np.float16)
    with pytest.raises(InputError, match="top is 0"):
        search_on_devices(np.ones((1, 3)), gallery, top=0)
    for value in (np.nan, np.inf, -np.inf):
        broken = gallery.copy()
        broken[3, 1] = value
        with pytest.raises(InputError, match="gallery holds numbers that are not finite"):
            search_on_devices(np.ones((1, 3)), broken)
    with pytest.raises(InputError, match="A similarity is not finite"):
        search_on_devices(np.full((1, 3), -3e38), gallery)
