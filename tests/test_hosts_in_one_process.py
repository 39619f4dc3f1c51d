"""What several processes agree upon, and how they share a batch, in a single process that plays one or two of them."""

import argparse
import threading

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from configs import synthetic
from icre_jax.data.pipeline import RecordSource, evaluation_batches, training_batches
from icre_jax.data.plan import BalancedPlan
from icre_jax.engine.parallel import make_mesh
from icre_jax.errors import HostError, InputError, NotSavedError
from icre_jax.machine import hosts
from icre_jax.settings import parse, to_json
from icre_jax.training.session import _require_same_settings
from tests.conftest import free_port


def flags(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    hosts.add_flags(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--process_id", "1"), r"need --distributed as well"),
        (("--distributed", "--process_id", "1"), r"--coordinator, --num_processes missing.*or none of them"),
        (
            ("--distributed", "--coordinator", "here", "--num_processes", "2", "--process_id", "0"),
            r"--coordinator is 'here'; it must be HOST:PORT",
        ),
        (
            ("--distributed", "--coordinator", "here:99999", "--num_processes", "2", "--process_id", "0"),
            r"'here:99999'; it must be HOST:PORT",
        ),
        (
            ("--distributed", "--coordinator", "here:1234", "--num_processes", "2", "--process_id", "2"),
            r"--process_id is 2; with --num_processes 2 it must be 0 \.\. 1",
        ),
        (
            ("--distributed", "--coordinator", "here:1234", "--num_processes", "0", "--process_id", "0"),
            r"--num_processes is 0",
        ),
    ],
)
def test_flags_that_do_not_fit_together(arguments, words):
    with pytest.raises(InputError, match=words):
        hosts.join(flags(*arguments))


def test_nobody_to_meet():
    address = f"localhost:{free_port()}"
    with pytest.raises(InputError, match=rf"Nobody listens at --coordinator {address}.*--process_id 0"):
        hosts.wait_for_port(address, seconds=1)


def test_a_batch_that_hosts_and_devices_cannot_share(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 6)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.local_device_count", lambda: 3)
    with pytest.raises(InputError, match=r"16 rows is 8 .* pairs, which 6 devices \(2 processes with 3 each\) cannot"):
        make_mesh(16)


def test_hosts_share_a_batch_without_changing_it(prepared, config):
    settings = parse(config)
    source = RecordSource(prepared, ("train", "val"))
    plan = BalancedPlan(source.index, num_ids_per_batch=4, num_images_per_id=2, num_batches=3, seed=7)

    def collect(rows):
        arguments = {"data": settings.data, "settings": settings.augment, "seed": 7, "start": 1, "rows": rows}
        return list(training_batches(source, plan, **arguments))

    # As devices of two hosts may lie in turns.
    shares = [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    parts = [collect(rows) for rows in shares]
    for number, whole in enumerate(collect(None)):
        for rows, part in zip(shares, parts, strict=True):
            for name, values in whole.items():
                np.testing.assert_array_equal(part[number][name], values[rows])
    test = RecordSource(prepared, ("query",))
    whole = list(evaluation_batches(test, data=settings.data, batch_size=10))
    part = list(evaluation_batches(test, data=settings.data, batch_size=10, rows=[2, 3, 9]))
    assert len(part) == len(whole)
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"][[2, 3, 9]])
        np.testing.assert_array_equal(a["mask"], b["mask"][[2, 3, 9]])


def test_alone_everything_is_a_plain_call(tmp_path):
    hosts.join(flags())
    assert hosts.is_first()
    assert hosts.exchange({"a": 1}) == [{"a": 1}]
    assert hosts.from_first(lambda: 3) == hosts.everywhere(lambda: 3) == hosts.first_then_others(lambda: 3) == 3
    hosts.require_common_folder(tmp_path, flag="--workdir")
    vote = hosts.Vote()
    assert [vote.cast(False), vote.cast(True)] == [False, True]
    with pytest.raises(SystemExit, match="75"):
        hosts.leave(75)
    with pytest.raises(jax.errors.JaxRuntimeError), hosts.explain_lost_hosts():
        raise jax.errors.JaxRuntimeError("out of memory")


class Meeting:
    """Two processes in one: the store of keys and values, and which of them asks."""

    def __init__(self, monkeypatch):
        self.store: dict[str, str] = {}
        self.key_value_set = self.store.__setitem__
        self._monkeypatch = monkeypatch
        monkeypatch.setattr("jax.process_count", lambda: 2)
        monkeypatch.setattr(hosts, "_client", lambda: self)

    def blocking_key_value_get(self, key, milliseconds):
        return self.store[key]

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.store.items() if key.startswith(prefix)]

    def be(self, process: int) -> None:
        self._monkeypatch.setattr("jax.process_index", lambda: process)
        self._monkeypatch.setattr(hosts, "_topics", 0)


def test_an_error_of_one_reaches_the_others(monkeypatch, tmp_path):
    meeting = Meeting(monkeypatch)

    def fail(error):
        raise error

    meeting.be(0)
    with pytest.raises(InputError, match=r"^no data$"):
        hosts.from_first(lambda: fail(InputError("no data")))
    meeting.be(1)
    with pytest.raises(InputError, match="process 0: no data"):
        hosts.from_first(lambda: fail(AssertionError))
    meeting.be(0)
    with pytest.raises(ZeroDivisionError):
        hosts.from_first(lambda: fail(ZeroDivisionError("a bug")))
    meeting.be(1)
    with pytest.raises(HostError, match="process 0: a bug"):
        hosts.from_first(lambda: fail(AssertionError))

    meeting.store |= {"icre_jax/1/0": "null", "icre_jax/1/1": '[false, "disk gone"]'}
    meeting.be(0)
    with pytest.raises(InputError, match=r"(?s)Another process cannot go on.*process 1: disk gone"):
        hosts.everywhere(lambda: 1)

    # A workdir that only process 0 has.
    meeting.be(1)
    meeting.store |= {"icre_jax/1": '{"value": ".hosts-1"}', "icre_jax/2": '{"value": null}', "icre_jax/3/0": "null"}
    with pytest.raises(InputError, match="is not the folder that process 0 sees"):
        hosts.require_common_folder(tmp_path, flag="--workdir")
    words = r"process 1 of 2 cannot go on.*Connection closed by peer.*Start all of them"
    with pytest.raises(HostError, match=words), hosts.explain_lost_hosts():
        raise jax.errors.JaxRuntimeError("Connection closed by peer")


@pytest.mark.parametrize("failing", [0, 1])
def test_a_save_that_fails_in_one_process_ends_this_one(monkeypatch, capsys, failing):
    """This is process 0, whose own save fails, or waits inside a library for that of process 1."""
    meeting, ended = Meeting(monkeypatch), threading.Event()
    codes = []
    monkeypatch.setattr(hosts, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(hosts.os, "_exit", lambda code: (codes.append(code), ended.set()))
    meeting.be(0)
    meeting.store["icre_jax/1/knows/1"] = ""
    if failing:
        meeting.store["icre_jax/1/failed/1"] = "Its disk is full."

    def save():
        if not failing:
            raise NotSavedError("The disk is full.")
        assert ended.wait(10)

    hosts.save_together(save)
    assert set(codes) == {4}
    words = "error: process 1: Its disk is full. All processes end" if failing else "error: The disk is full. All proc"
    assert words in capsys.readouterr().err
    assert meeting.store["icre_jax/1/knows/0"] == ""
    if not failing:
        assert meeting.store["icre_jax/1/failed/0"] == "The disk is full."


def test_devices_of_hosts_in_turns(monkeypatch):
    """Rows follow the devices, in whatever order a mesh has them."""
    from icre_jax.engine import parallel

    class Shards:
        def __init__(self, mesh, spec):
            pass

        def addressable_devices_indices_map(self, shape):
            return {"a": (slice(8, 12, None),), "b": (slice(0, 4, None),)}

    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(parallel, "NamedSharding", Shards)
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    assert parallel.local_rows(mesh, 16) == [0, 1, 2, 3, 8, 9, 10, 11]


def test_processes_of_one_run_need_one_config():
    """A run may continue with another `parallel`; processes that run together may not differ in it."""
    settings = parse(synthetic.get_config())
    same = settings.model_copy(update={"logging": settings.logging.model_copy(update={"every_steps": 7})})
    _require_same_settings(to_json(settings), same)
    for changes, words in (
        ({"parallel": "pmap"}, "parallel: jit -> pmap"),
        ({"model": settings.model.model_copy(update={"remat": True})}, "model.remat: False -> True"),
        ({"seed": 3}, "seed: 0 -> 3"),
    ):
        with pytest.raises(InputError, match=words):
            _require_same_settings(to_json(settings), settings.model_copy(update=changes))
