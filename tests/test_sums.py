"""Damage of any kind in a checkpoint: refused by the file's name, with the step that is taken instead; or no effect."""

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icre_jax.engine import stored
from icre_jax.engine.checkpoint import folder as checkpoint_folder
from icre_jax.engine.checkpoint import opening
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.checkpoint.variables import read_variables, write_variables
from icre_jax.engine.state import TrainState
from icre_jax.errors import InputError, NotSavedError
from icre_jax.sums import SUMS, find_damage, list_anew, seal, unseal, write_sums
from tests.conftest import refused, run_command
from tests.damage import files_of, flip
from tests.small_runs import assert_same_run, run, saved_steps

METRIC = "all/single/mAP"
NOTES = ("_CHECKPOINT_METADATA", "commit_success.txt")


def make_state(step: int) -> TrainState:
    """Arrays that do not compress to nothing, as those of a network."""
    keys = jax.random.split(jax.random.key(step), 3)
    kernel, mean, count = (jax.random.normal(key, (300,)) for key in keys)
    return TrainState(jnp.int32(step), {"kernel": kernel}, {"mean": mean}, {"count": count})


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Steps 3, 6 and 9, of which 6 is the best; to read only."""
    workdir = tmp_path_factory.mktemp("saved")
    with contextlib.closing(Checkpoints(workdir, keep_latest=3, best_metric=METRIC)) as opened:
        for step, score in ((3, 0.1), (6, 0.9), (9, 0.5)):
            opened.save(make_state(step), {"step": step}, {METRIC: score})
    return workdir


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def folder_of(workdir: Path, step: int) -> Path:
    return workdir / "checkpoints" / str(step)


def summed_files_of(folder: Path) -> list[str]:
    """With the list itself; older versions of orbax have one note less."""
    return [name for name in files_of(folder) if name not in NOTES]


def read_all(workdir: Path, step: int, *, read_only: bool = True) -> tuple:
    """Everything that anybody reads of a step, each by an opening of its own, as commands do."""
    how = {"best_metric": METRIC, "read_only": read_only}
    with contextlib.closing(Checkpoints(workdir, **how)) as opened:
        state = opened.restore(step, like=make_state(0))
    with contextlib.closing(Checkpoints(workdir, **how)) as opened:
        facts, best = opened.read_facts(step), opened.best_step
    with contextlib.closing(Checkpoints(workdir, **how)) as opened:
        variables = opened.read_variables(step)
    with contextlib.closing(Checkpoints(workdir, **how)) as opened:
        variables_again = opened.restore_variables(step, jax.eval_shape(lambda: make_state(0).variables))
    return facts, best, *(leaf.tobytes() for leaf in jax.tree.leaves((state, variables, variables_again)))


def refused_or_without_effect(workdir: Path, step: int, expected: tuple, *, read_only: bool) -> str:
    """What was said; empty where nothing was refused and every bit is as it was."""
    try:
        assert read_all(workdir, step, read_only=read_only) == expected
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.versions
def test_a_flipped_bit_in_any_file_is_found(saved):
    """By the comparison alone, which stands before every read; the reads themselves are in tests/test_damage.py."""
    folder, draws = folder_of(saved, 9), random.Random(0)
    listed = [line.split("  ")[1] for line in (folder / SUMS).read_text().splitlines() if line[0] != "#"]
    assert sorted([*listed, SUMS]) == summed_files_of(folder)
    assert find_damage(folder, leave_out=NOTES) == []
    for name in (*listed, SUMS):
        before = (folder / name).read_bytes()
        for _ in range(5):
            flip(folder / name, draws.randrange(len(before)), draws.randrange(8))
            findings = find_damage(folder, leave_out=NOTES)
            (folder / name).write_bytes(before)
            assert len(findings) == 1
            assert findings[0].startswith(name)


def largest(folder: Path) -> str:
    return max(files_of(folder / "params"), key=lambda name: (folder / "params" / name).stat().st_size)


DAMAGES = {
    "flipped": lambda file: flip(file, file.stat().st_size // 2, 3),
    "garbled": lambda file: file.write_bytes(random.Random(0).randbytes(file.stat().st_size)),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": lambda file: file.unlink(),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_was_damaged_is_named_with_the_step_to_take_instead(copy, what):
    name = f"params/{largest(folder_of(copy, 9))}"
    DAMAGES[what](folder_of(copy, 9) / name)
    with (
        contextlib.closing(Checkpoints(copy, read_only=True)) as opened,
        pytest.raises(InputError, match=rf"step 9 in .* is damaged: {name} .*of step 6: take it with --checkpoint 6"),
    ):
        opened.read_variables(9)


@pytest.mark.versions
@pytest.mark.parametrize("name", ["foreign", "params/d/foreign", "foreign/file", "params/link"])
def test_a_foreign_file_is_refused(copy, name):
    file = folder_of(copy, 9) / name
    file.parent.mkdir(exist_ok=True)
    file.symlink_to("/nowhere") if "link" in name else file.write_bytes(b"")
    with (
        contextlib.closing(Checkpoints(copy, read_only=True)) as opened,
        pytest.raises(InputError, match=f"damaged: {name} was not there when it was saved"),
    ):
        opened.read_facts(9)


def test_the_next_step_that_is_whole_is_offered(copy):
    def said(step: int) -> str:
        with (
            contextlib.closing(Checkpoints(copy, read_only=True)) as opened,
            pytest.raises(InputError, match=f"step {step} in .* is damaged") as caught,
        ):
            opened.read_facts(step)
        return str(caught.value)

    for step, words in ((9, "--checkpoint 6"), (6, "--checkpoint 3"), (3, "No other checkpoint there is whole")):
        (folder_of(copy, step) / "facts" / "metadata").write_bytes(b"{}")
        assert words in said(step)
    shutil.rmtree(folder_of(copy, 9))
    with contextlib.closing(Checkpoints(copy, keep_latest=3)) as opened:
        opened.save(make_state(12), {})
    assert "--checkpoint 12" in said(6)  # a newer one where no older one is whole


@pytest.mark.versions
@pytest.mark.parametrize("step", [6, 9])
@pytest.mark.parametrize("read_only", [True, False])
def test_damaged_scores_do_not_choose_the_best_step(copy, step, read_only):
    """Also of a step that is not read otherwise: older ones are deleted by them."""
    scores = folder_of(copy, step) / "metrics" / "metrics"
    scores.write_text(scores.read_text().replace("0.", "1."))
    older, words = step - 3, rf"step {step} in .* is damaged: metrics/metrics .*"
    if not read_only:
        words += rf"Delete .*{step} and start the same command again: it continues after step {older}, which is whole"
        with pytest.raises(InputError, match=words):
            Checkpoints(copy, best_metric=METRIC)
        return
    with contextlib.closing(Checkpoints(copy, best_metric=METRIC, read_only=True)) as opened:
        assert opened.read_facts(3) == {"step": 3}
        with pytest.raises(InputError, match=rf"{words}take it with --checkpoint {older}"):
            _ = opened.best_step


@pytest.mark.parametrize("content", ["[]", '{"item_handlers": 3}', "", None])
def test_what_orbax_notes_has_no_effect_or_is_refused(copy, saved, content):
    for name in NOTES:
        file = folder_of(copy, 9) / name
        file.unlink(missing_ok=True) if content is None else file.write_text(content)
    expected = read_all(saved, 9)
    for read_only in (True, False):
        words = refused_or_without_effect(copy, 9, expected, read_only=read_only)
        assert bool(words) <= (content in ("[]", '{"item_handlers": 3}'))
        assert not words or NOTES[0] in words


@pytest.mark.versions
def test_a_checkpoint_of_an_older_version_is_taken_and_that_is_said(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(opening, "write_sums", lambda *_, **__: None)
        patch.setattr(checkpoint_folder, "SUMMED", "step")
        with contextlib.closing(Checkpoints(tmp_path)) as opened:
            opened.save(make_state(4), {})
    facts = folder_of(tmp_path, 4) / "facts" / "metadata"
    facts.write_text(json.dumps({"a": 1}))
    with contextlib.closing(Checkpoints(tmp_path, read_only=True)) as opened:
        assert opened.read_facts(4) == {"a": 1}
        jax.tree.map(np.testing.assert_array_equal, opened.read_variables(4)["params"], make_state(4).params)
    said = capsys.readouterr().err
    assert said.count("is of an older version and has no SHA256SUMS: whether it is damaged is not known.") == 1
    # What orbax itself finds is said in the same way.
    DAMAGES["garbled"](folder_of(tmp_path, 4) / "params" / largest(folder_of(tmp_path, 4)))
    with (
        contextlib.closing(Checkpoints(tmp_path, read_only=True)) as opened,
        pytest.raises(InputError, match=r"step 4 in .* is damaged: .*No other checkpoint there is whole"),
    ):
        opened.read_variables(4)


def test_sums_that_are_gone_are_damage(copy):
    for step in (9, 6):
        (folder_of(copy, step) / SUMS).unlink()
    with (
        contextlib.closing(Checkpoints(copy, read_only=True)) as opened,
        pytest.raises(InputError, match=r"step 9 in .* is damaged: SHA256SUMS is missing\. .*--checkpoint 3"),
    ):
        opened.read_facts(9)


@pytest.mark.versions
def test_sums_that_cannot_be_written_leave_nothing(copy, monkeypatch):
    """They belong to the save: a step without them never gets its name."""

    def full(folder, **_):
        (folder / SUMS).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with contextlib.closing(Checkpoints(copy, keep_latest=3, best_metric=METRIC)) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(opening, "write_sums", full)
            with pytest.raises(NotSavedError, match=r"step 12 could not be written .*No space left"):
                opened.save(make_state(12), {})
        assert saved_steps(copy) == {3, 6, 9}
        opened.save(make_state(12), {"step": 12})
        assert opened.read_facts(12) == {"step": 12}


def test_sums_are_read_by_the_tool_of_that_name(saved):
    process = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS], cwd=folder_of(saved, 9), capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count(": OK") == len(summed_files_of(folder_of(saved, 9))) - 1


def test_one_file_is_listed_anew(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"1")
    write_sums(tmp_path)
    before = (tmp_path / SUMS).read_bytes()
    list_anew(tmp_path, "a")
    assert (tmp_path / SUMS).read_bytes() == before
    for name in "ac":
        (tmp_path / name).write_bytes(b"22")
        list_anew(tmp_path, name)
    assert find_damage(tmp_path) == []
    (tmp_path / "b").write_bytes(b"2")
    list_anew(tmp_path, "c")
    assert len(find_damage(tmp_path)) == 1  # of b, which was not asked for
    (tmp_path / SUMS).write_bytes(b"")
    with pytest.raises(ValueError, match="not as it was saved"):
        list_anew(tmp_path, "a")


def test_what_is_compared_of_a_folder(tmp_path):
    (tmp_path / "part" / "deep").mkdir(parents=True)
    names = ["a", "ab", "part/deep/a", "part/large"]
    for name in names:
        (tmp_path / name).write_bytes(b"12")
    write_sums(tmp_path)
    for name in names:
        (tmp_path / name).write_bytes(b"13")
    assert len(find_damage(tmp_path)) == 4
    assert [found.split()[0] for found in find_damage(tmp_path, only=("a", "part"))] == [
        "a",
        "part/deep/a",
        "part/large",
    ]
    assert [found.split()[0] for found in find_damage(tmp_path, leave_out=("a", "ab", "part/large"))] == ["part/deep/a"]
    assert len(find_damage(tmp_path, by_size=lambda name: "large" in name)) == 3
    (tmp_path / "part" / "large").write_bytes(b"123")
    assert find_damage(tmp_path, only=("part/large",), by_size=lambda name: True) == [
        "part/large has 3 bytes, and 2 were saved"
    ]


def test_a_list_without_sizes_is_of_an_older_version_and_good(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    write_sums(tmp_path)
    line = (tmp_path / SUMS).read_text().splitlines()[0] + "\n"
    end = f"# sha256 of the lines above: {hashlib.sha256(line.encode()).hexdigest()}\n"
    (tmp_path / SUMS).write_text(line + end)
    assert find_damage(tmp_path) == []
    (tmp_path / "a").write_bytes(b"12")
    assert "a has the sha256" in find_damage(tmp_path)[0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x), max_leaves=9
    )
)
def test_a_sealed_document(value):
    content = json.loads(json.dumps({"a": value, "b": 1}))
    text = json.dumps(seal(content), indent=1)
    assert json.dumps(unseal(json.loads(text))) == json.dumps(content)
    with pytest.raises(ValueError, match="differs"):
        unseal({**json.loads(text), "b": 2})
    with pytest.raises(ValueError, match="is missing"):
        unseal(content)
    with pytest.raises(ValueError, match="must hold an object"):
        unseal([content])


def test_lists_that_are_none(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    write_sums(tmp_path)
    assert find_damage(tmp_path) == []
    whole = (tmp_path / SUMS).read_bytes()
    hashed = [
        f"{lines}# sha256 of the lines above: {hashlib.sha256(lines.encode()).hexdigest()}\n".encode()
        for lines in ("x y\n", "x  y\n# bytes: \n", "x  y\n# bytes: 1 2\n", "x  y\n# bytes: z\n")
    ]
    for content in (b"", b"\xff", whole[:-1], whole[10:], whole + b"\n", whole + whole, *hashed):
        (tmp_path / SUMS).write_bytes(content)
        assert len(find_damage(tmp_path)) == 1, content
    with (tmp_path / SUMS).open("ab") as file:
        file.truncate(2**25)  # sparse
    assert "it has 33,554,432 bytes; at most 16,777,216" in find_damage(tmp_path)[0]


@pytest.mark.long
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_run_goes_on_from_an_older_checkpoint_as_the_message_says(small, tmp_path, parallel):
    """9 steps, saved after 0, 3, 6 and 9; what is computed again has the same bits."""
    small.checkpoint.keep_latest = 4
    small.parallel = parallel
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(small, whole)
    shutil.copytree(whole, broken)
    DAMAGES["flipped"](folder_of(broken, 9) / "opt_state" / "_METADATA")
    log = (broken / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"opt_state/_METADATA .*Delete .*it continues after step 6") as caught:
        run(small, broken)
    assert (broken / "metrics.jsonl").read_bytes() == log  # nothing was cut
    assert str(folder_of(broken, 9)) in str(caught.value)
    shutil.rmtree(folder_of(broken, 9))
    _, screen = run(small, broken)
    assert "Continuing after step 6 of 9" in screen
    assert_same_run(whole, broken)


@pytest.mark.long
def test_commands_refuse_a_damaged_checkpoint_and_take_the_one_that_is_offered(small, tmp_path):
    small.checkpoint.keep_latest = 2
    workdir = tmp_path / "run"
    run(small, workdir)
    latest, older = sorted(saved_steps(workdir))[:-3:-1]
    name = f"params/{largest(folder_of(workdir, latest))}"
    DAMAGES["garbled"](folder_of(workdir, latest) / name)
    exported = ("--out", str(tmp_path / "out"))
    weights = ("--to_safetensors", str(tmp_path / "weights.safetensors"), "--stem", "visible")
    for command, flags in (("evaluate", ()), ("export", exported), ("convert", weights)):
        process = run_command(f"icre_jax.{command}", "--workdir", str(workdir), *flags)
        refused(process, f"step {latest}", name, f"--checkpoint {older}")
        process = run_command(f"icre_jax.{command}", "--workdir", str(workdir), *flags, "--checkpoint", str(older))
        assert process.returncode == 0, process.stderr
    with pytest.raises(InputError, match=f"step {latest} .*is damaged: {name}"):
        stored.read_stored(workdir)


def test_garbled_compression_in_an_export_is_refused(tmp_path):
    write_variables(tmp_path / "variables", make_state(1).variables)
    like = make_state(0).variables
    jax.tree.map(np.testing.assert_array_equal, read_variables(tmp_path / "variables", like), make_state(1).variables)
    DAMAGES["garbled"](max((tmp_path / "variables").rglob("d/*"), key=lambda file: file.stat().st_size))
    with pytest.raises(InputError, match="is no network, or a damaged one"):
        read_variables(tmp_path / "variables", like)


@pytest.mark.parametrize("name", ["config.json", "classes.json", "provenance.json"])
def test_what_stands_beside_an_exported_network_is_compared(tmp_path, name):
    """Numbers that no array depends on, changed in place."""
    box = Path(shutil.copytree(stored.BOX / "synthetic", tmp_path / "box"))
    content = json.loads((box / name).read_text())
    if name == "config.json":
        content["schedule"]["num_epochs"] += 1
    elif name == "classes.json":
        content["class_pids"][0] += 1
    else:
        content["data_fingerprint"] = content["data_fingerprint"][::-1]
    (box / name).write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=f"was changed or damaged since it was written: {name} has .* export the run again"
    ):
        stored.read_stored(box)


def test_an_export_without_sums_is_refused(tmp_path):
    box = Path(shutil.copytree(stored.BOX / "synthetic", tmp_path / "box"))
    (box / SUMS).unlink()
    with pytest.raises(InputError, match=r"SHA256SUMS is missing.* export the run again"):
        stored.read_stored(box)


def test_the_box_is_as_it_was_written():
    """Whoever edits a file of it has to list it anew; the card is not listed."""
    assert find_damage(stored.BOX / "synthetic", leave_out=("README.md",)) == []
