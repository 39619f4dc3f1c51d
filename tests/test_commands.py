"""Every command, started as a user would; each way of bad luck gives clear words and a non-zero exit."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from icre_jax.errors import InputError
from icre_jax.evals.results import read_results
from icre_jax.settings import parse
from tests.conftest import PEOPLE, ROOT, flags_of, run_command

BAD_INPUT = 2


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def trained(config, made, tmp_path_factory):
    """A workdir that `python -m icre_jax.train` left, made once for this file."""
    if not made:
        workdir = tmp_path_factory.mktemp("trained")
        made["process"] = run_command("icre_jax.train", *flags_of(config), "--workdir", str(workdir))
        made["workdir"] = workdir
    assert made["process"].returncode == 0, made["process"].stderr
    return made["workdir"]


def refused(process: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, the words on standard error, and no traceback."""
    assert process.returncode == BAD_INPUT, process.stdout + process.stderr
    for word in words:
        assert word in process.stderr, process.stderr
    assert "Traceback" not in process.stderr


def test_train_ends_in_a_table_and_a_report(trained, made):
    out = made["process"].stdout
    assert "Rank-1" in out
    assert "mINP" in out
    assert f"Report:  {trained / 'report.html'}" in out
    assert "rror" not in made["process"].stderr
    assert (trained / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_evaluate_repeats_the_numbers_of_training(trained, tmp_path):
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, trained))
    assert ours["results"] == theirs["results"]
    assert "python -m icre_jax.evaluate" in ours["provenance"]["command"]
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert len(rows) == 5
    for word in ("all", "indoor", "multi", "single", "Rank-1", "mAP"):
        assert word in process.stdout


@pytest.mark.long
def test_evaluate_prints_the_det_curve(trained, tmp_path):
    evaluate = ("icre_jax.evaluate", "--workdir", str(trained), "--open_set")
    process = run_command(*evaluate, "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
    said = json.loads((tmp_path / "open_set.json").read_text())
    (found,) = said["directions"]
    half = PEOPLE.num_test_ids // 2
    assert (found["direction"], found["enrolled_persons"], found["strangers"]) == ("infrared->visible", half, half)
    assert [point["target"] for point in found["curve"]] == [0.5]  # of two strangers at a time
    assert found["left_out"] == "same place left out"
    assert said["provenance"]["dataset"] == said["dataset"] == "synthetic people"
    assert "FNIR at rank 1" in process.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["open_set.json"]
    refused(run_command(*evaluate, "--reranking"), "--open_set cannot be had with --reranking")
    refused(run_command(*evaluate, "--without", "each"), "not allowed with argument")


def test_evaluate_takes_a_step_and_refuses_one_that_is_not_there(trained, tmp_path):
    workdir = Path(shutil.copytree(trained, tmp_path / "copy"))
    before = (workdir / "results.json").read_bytes()
    step = min(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    flags = ("--workdir", str(workdir), "--checkpoint")
    process = run_command("icre_jax.evaluate", *flags, str(step))
    assert process.returncode == 0, process.stderr
    provenance = json.loads((workdir / f"step_{step}" / "results.json").read_text())["provenance"]
    assert (provenance["step"], provenance["checkpoint"]) == (step, "chosen")
    assert (workdir / "results.json").read_bytes() == before  # the run's own results stay
    refused(run_command("icre_jax.evaluate", *flags, "12345"), "no checkpoint of step 12345", str(step))


@pytest.mark.long
def test_evaluate_measures_in_another_way_beside_the_runs_own_results(trained):
    before = (trained / "results.json").read_bytes()
    flags = ("--feature", "features", "--flip", "--reranking", "--gallery_source", "python-random")
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), *flags)
    assert process.returncode == 0, process.stderr
    assert "WITH RE-RANKING" in " ".join(process.stdout.split())  # the title of the table may be broken into lines
    assert (trained / "results.json").read_bytes() == before
    folder = trained / "features_flip_reranking_python-random"
    results = json.loads((folder / "results.json").read_text())["results"]
    plain = json.loads(before)["results"]
    labels = {(r["feature"], r["flip"], r["reranking"], r["gallery_source"]) for r in results}
    assert labels == {("features", True, True, "python-random")}
    assert [r["setting"] for r in results] == [r["setting"] for r in plain]
    assert [r["num_valid_queries"] for r in results] == [r["num_valid_queries"] for r in plain]
    assert [r["mean"] for r in results] != [r["mean"] for r in plain]
    tex = (folder / "results.tex").read_text()
    assert "gallery: python-random, 2 trials, features, flip, WITH RE-RANKING" in tex
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--gallery_source", "official")
    refused(process, "exp/rand_perm_cam.mat", "not there")


def test_evaluate_takes_parts_out_of_the_network(trained):
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--without", "masks, enhancement")
    assert process.returncode == 0, process.stderr
    whole, provenance = read_results(trained)
    for part in ("masks", "enhancement"):
        results, beside = read_results(trained / f"without_{part}")
        assert [result.setting for result in results] == [result.setting for result in whole]
        assert {result.feature for result in results} == {f"embeddings, {part} taken out"}
        assert (beside["step"], beside["data_fingerprint"]) == (provenance["step"], provenance["data_fingerprint"])
        assert f"without {part}: " in process.stdout
    assert read_results(trained)[0] == whole  # the run's own stay


def test_evaluate_refuses_a_part_that_is_not_there(trained):
    process = run_command("icre_jax.evaluate", "--workdir", str(trained), "--without", "nose")
    refused(process, "has no nose; it has masks, guide, cross_attention")


def test_evaluate_refuses_a_damaged_config(trained, tmp_path):
    (tmp_path / "config.json").write_text((trained / "config.json").read_text()[:100])
    refused(run_command("icre_jax.evaluate", "--workdir", str(tmp_path)), "config.json of the run is damaged")


def test_evaluate_refuses_a_mistyped_workdir(tmp_path):
    process = run_command("icre_jax.evaluate", "--workdir", str(tmp_path / "mistyped"))
    refused(process, "mistyped", "config.json is missing")


def test_evaluate_refuses_a_checkpoint_of_another_network(trained, tmp_path):
    workdir = Path(shutil.copytree(trained, tmp_path / "copy"))
    text = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(text.replace('"width": 4', '"width": 6'))
    refused(run_command("icre_jax.evaluate", "--workdir", str(workdir)), "another network", "saved (", "this network (")


def test_evaluate_refuses_other_data(trained, tmp_path, config):
    workdir = Path(shutil.copytree(trained, tmp_path / "copy"))
    changed = json.loads((workdir / "config.json").read_text())
    changed["data"]["synthetic"]["seed"] = 4
    changed["data"]["data_dir"] = str(tmp_path / "tree")
    changed["data"]["prepared_dir"] = str(tmp_path / "prepared")
    (workdir / "config.json").write_text(json.dumps(changed))
    refused(run_command("icre_jax.evaluate", "--workdir", str(workdir)), "fingerprint", "was trained on")


def test_prepare_makes_records_and_a_table(config, tmp_path):
    config.data.data_dir = str(tmp_path / "tree")
    config.data.prepared_dir = str(tmp_path / "prepared")
    process = run_command("icre_jax.prepare", *flags_of(config))
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "prepared" / "sysu_mm01" / "1.0.0" / "index.npz").is_file()
    for word in ("train", "query", "gallery", "infrared", "identities"):
        assert word in process.stdout


def real(config, data_dir: Path, tmp_path: Path) -> list[str]:
    """Flags for the config of the real data set, on a tree of ours: nothing is rendered."""
    config.data.data_dir = str(data_dir)
    config.data.prepared_dir = str(tmp_path / "records")
    return [*flags_of(config, "configs/sysu_mm01.py"), "--workdir", str(tmp_path / "work")]


def test_a_missing_data_folder(config, tmp_path):
    flags = [*real(config, tmp_path / "absent", tmp_path)]
    refused(
        run_command("icre_jax.train", *flags), str(tmp_path / "absent"), "does not exist", "cam1 .. cam6", "test_id"
    )


def test_an_empty_data_folder(config, tmp_path):
    (tmp_path / "empty").mkdir()
    flags = real(config, tmp_path / "empty", tmp_path)
    refused(run_command("icre_jax.train", *flags), "folder cam1 is missing", "list exp/train_id.txt is missing")


def test_a_truncated_image(config, tree, tmp_path):
    copy = Path(shutil.copytree(tree, tmp_path / "tree"))
    file = sorted(copy.glob("cam1/*/*.jpg"))[0]
    file.write_bytes(file.read_bytes()[:300])
    flags = real(config, copy, tmp_path)
    refused(run_command("icre_jax.train", *flags), file.relative_to(copy).as_posix(), "not readable")


def test_a_list_that_names_an_absent_identity(config, tree, tmp_path):
    copy = Path(shutil.copytree(tree, tmp_path / "tree"))
    path = copy / "exp" / "train_id.txt"
    path.write_text(path.read_text().strip() + ",4321\n")
    flags = real(config, copy, tmp_path)
    refused(run_command("icre_jax.train", *flags), "exp/train_id.txt names identity 4321")


def test_more_identities_per_batch_than_there_are(config, tmp_path):
    config.sampling.num_ids_per_batch = 64
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(tmp_path))
    refused(process, "num_ids_per_batch (P) is 64", "8 identities")
    assert not (tmp_path / "config.json").exists()  # or the corrected command would be refused


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.model.widht=8", ("no such field", "widht")),
        ("--config.augment.erasing_area=(0.4,0.02)", ("erasing_area", "smallest, largest")),
        ("--config.name=../../x", ("name = '../../x'", "letters, digits")),
        ("--config.seed=99999999999", ("seed = 99999999999", "less than 2147483648")),
        ("--config.model.depth=51", ("model.depth = 51", "18, 34, 50 or 101")),
        ("--config.augment.flip_probability=1.5", ("augment.flip_probability = 1.5", "less than or equal to 1")),
        ("--config.sampling.num_ids_per_batch=many", ("num_ids_per_batch", "many")),
        ("--config.checkpoint.best_metric=map", ("'map'", "all/single/mAP")),
        ("--workdirs=x", ("--workdirs",)),
        ("positional", ("positional",)),
    ],
)
def test_flags_that_cannot_be_used(flag, words, tmp_path):
    flags = ("--config", "configs/synthetic.py", "--workdir", str(tmp_path / "w"), flag)
    refused(run_command("icre_jax.train", *flags), *words)
    assert not (tmp_path / "w").exists()


def test_a_config_file_that_sets_an_unknown_field(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import synthetic\n\n\ndef get_config():\n    config = synthetic.get_config()\n"
        "    config.model.drpout = 0.5\n    del config.seed\n    return config\n"
    )
    process = run_command("icre_jax.train", "--config", str(file), "--workdir", str(tmp_path / "w"))
    refused(process, "model.drpout: unknown field", "seed: missing")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sys.exit(0)", "ended the program itself (exit code 0)"),
        ("sys.exit('no')", "ended the program itself (exit code no)"),
        ("raise RuntimeError('nothing here')", "nothing here"),
        ("return None", "must return an ml_collections.ConfigDict, not None"),
    ],
)
def test_a_config_file_that_is_no_config(tmp_path, line, words):
    file = tmp_path / "mine.py"
    file.write_text(f"import sys\n\n\ndef get_config():\n    {line}\n")
    refused(run_command("icre_jax.prepare", "--config", str(file)), words)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", ".hidden", "-x", "", "a b", "a\n", "x" * 101])
def test_the_name_of_a_config_is_one_folder(config, name):
    config.name = name
    with pytest.raises(InputError, match="a name of at most 100 letters"):
        parse(config)
    config.name = "x" * 100
    parse(config)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "No config given"),
        (("--config", "configs/absent.py"), "no config file configs/absent.py"),
        (("--config", "configs/synthetic.py:no"), "Unknown variant 'no'; allowed are baseline, baseline_triplet, agw"),
        (("--config", "configs/sysu_mm01.py:no"), "Unknown variant 'no'"),
        (("--config", "README.md"), "onfig"),
    ],
)
def test_no_such_config(flags, words, tmp_path):
    refused(run_command("icre_jax.train", *flags, "--workdir", str(tmp_path / "w")), words)


def test_a_workdir_that_cannot_be_written(config):
    # The kernel's own folder: read-only for root as well.
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", "/proc/icre_jax_run")
    refused(process, "Cannot write to the workdir /proc/icre_jax_run")


def test_a_workdir_that_is_a_file(config, tmp_path):
    (tmp_path / "file").write_text("x")
    refused(run_command("icre_jax.train", *flags_of(config), "--workdir", str(tmp_path / "file")), "Cannot write")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.long
def test_a_full_disk(config, small_disk):
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(small_disk / "run"))
    assert process.returncode == 4, process.stdout + process.stderr
    for words in ("MiB free", "needs", "start the same command again"):
        assert words in process.stderr
    assert "Traceback" not in process.stderr


def test_a_workdir_of_another_config(trained, config):
    config.sampling.num_images_per_id = 4
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(trained))
    refused(process, "another config", "sampling.num_images_per_id: 8 -> 4")


@pytest.mark.long
def test_training_that_diverges(config, tmp_path):
    config.optimizer.name = "sgd"
    config.optimizer.backbone_learning_rate = config.optimizer.head_learning_rate = 1e30
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(tmp_path))
    assert process.returncode == 3
    assert "at step" in process.stderr
    assert re.search(r"(loss/\w+|gradient_norm) is (nan|inf) at step \d+", process.stderr)
    assert "Traceback" not in process.stderr
    file = re.search(r"--replay (\S+)", process.stderr).group(1)
    again = run_command("icre_jax.train", "--workdir", str(tmp_path), "--replay", file)
    assert again.returncode == 3, again.stderr
    assert "NO" in again.stdout
    assert "Traceback" not in again.stderr


@pytest.mark.long
def test_a_replay_that_cannot_be_made(tmp_path):
    file = tmp_path / "replay_step_3.npz"
    refused(run_command("icre_jax.train", "--replay", str(file)), "--replay needs the --workdir")
    refused(run_command("icre_jax.train", "--workdir", str(tmp_path), "--replay", str(file)), "is not a replay file")
    refused(
        run_command(
            "icre_jax.train", "--workdir", str(tmp_path), "--replay", str(file), "--config", "configs/synthetic.py"
        ),
        "no --config",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.long
def test_a_signal_saves_and_the_same_command_continues(config, tmp_path, number, num_workers):
    """Sent to the whole group, as a terminal and schedulers do: its input's workers go on until the run has saved."""
    config.data.num_workers = num_workers
    config.schedule.num_epochs = 300
    config.evaluation.every_epochs = 1000
    command = [sys.executable, "-m", "icre_jax.train", *flags_of(config), "--workdir", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count('"train"') > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    step = int(out.split("Stopped on request; step ")[1].split()[0])
    assert (tmp_path / "checkpoints" / str(step)).is_dir()
    again = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert again.stdout is not None
    for line in again.stdout:
        if "Continuing after step" in line:
            assert f"step {step} of" in line
            break
    else:
        pytest.fail("the second start did not continue")
    again.kill()
    again.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(number):
    """Even inside a library where Python runs no handler: here one that computes for minutes."""
    script = (
        "import hashlib\nfrom icre_jax.machine.stop import StopRequest\n"
        "with StopRequest(second_ends=True):\n"
        "    print('entered', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "entered\n"
        try:
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            process.send_signal(number)
            assert process.wait(timeout=30) == 128 + number
        finally:
            process.kill()  # or a failed test would wait for the minutes
        assert "second signal" in process.stderr.read()


@pytest.mark.long
def test_a_second_signal_ends_training_at_once(config, tmp_path):
    config.schedule.num_epochs = 300
    config.evaluation.every_epochs = 1000
    command = [sys.executable, "-m", "icre_jax.train", *flags_of(config), "--workdir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "images/s" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (143, 130), err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    "module",
    [
        f"icre_jax.{name}"
        for name in (
            "train",
            "evaluate",
            "prepare",
            "verify",
            "ablate",
            "describe",
            "doctor",
            "export",
            "score",
            "average",
        )
    ],
)
def test_help_says_what_the_command_is_for(module):
    process = run_command(module, "--help")
    assert process.returncode == 0
    assert f"python -m {module}" in process.stdout
    assert process.stdout.count("\n") > 5
