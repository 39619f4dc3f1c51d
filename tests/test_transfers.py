"""Nothing goes between host and devices in the training loop and the embedder but what is meant to.

On a CPU JAX flags what is handed to a compiled program without being put on its device first; numbers that are read
back are not flagged there, as nothing is copied. For those the methods that read one are watched.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.array import ArrayImpl

from icre_jax.data.pipeline import RecordSource
from icre_jax.datasets import VISIBLE
from icre_jax.engine import embedder, parallel
from icre_jax.settings import parse
from icre_jax.training import divergence, loop
from tests.small_runs import run
from tests.test_precision import program_of


@pytest.fixture
def watched(monkeypatch):
    """Reading a number of a device array by int(), float() or bool() is an error where transfers are forbidden."""
    for name in ("__float__", "__int__", "__bool__", "__index__"):
        real = getattr(ArrayImpl, name)

        def read(self, real=real, name=name):
            if jax.config.jax_transfer_guard_device_to_host == "disallow":
                raise AssertionError(f"Disallowed device-to-host transfer: {name}")
            return real(self)

        monkeypatch.setattr(ArrayImpl, name, read)


def test_the_watch_sees_what_is_read_and_lets_pass_what_is_asked_for(watched):
    x = jnp.float32(1.0)
    with jax.transfer_guard("disallow"):
        assert float(jax.device_get(x)) == 1.0
        with pytest.raises(AssertionError, match="Disallowed"):
            float(x)
    assert float(x) == 1.0


@pytest.mark.long
def test_a_run_has_no_transfer_that_nobody_asked_for(small, tmp_path, watched):
    outcome, _ = run(small, tmp_path)
    assert outcome is not None


def test_a_batch_that_is_not_put_on_the_devices_ends_the_run(small, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "spread", lambda mesh, rows: rows)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"Disallowed host-to-device transfer.*uint8\[64,32,16,3\]"):
        run(small, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("place", ["the finite watch", "the log"])
def test_a_number_that_is_read_in_passing_ends_the_run(small, tmp_path, monkeypatch, watched, place):
    class Reading:
        """jax, whose `device_get` leaves numbers on the device."""

        transfer_guard = staticmethod(jax.transfer_guard)
        block_until_ready = staticmethod(jax.block_until_ready)
        device_get = staticmethod(lambda x: x)

    monkeypatch.setattr(divergence if place == "the finite watch" else loop, "jax", Reading)
    with pytest.raises(AssertionError, match="Disallowed device-to-host transfer: __float__"):
        run(small, tmp_path)


def test_weights_that_lie_on_the_host_are_no_weights_to_embed_with(prepared, config):
    """They would be copied to the device once for every batch."""
    program = program_of()
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), program.abstract_state.variables)
    source = RecordSource(prepared, ("query",))
    arguments = {"data": parse(config).data, "batch_size": 16}
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        embedder.embed_records(program.network, variables, source, VISIBLE, **arguments)
    found = embedder.embed_records(program.network, jax.device_put(variables), source, VISIBLE, **arguments)
    assert len(found.pid) == len(source.index.pid)
