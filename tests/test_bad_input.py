"""Bad input and bad luck give clear words and a non-zero exit: data, flags, configs, folders, a full disk."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from icre_jax.errors import InputError
from icre_jax.settings import parse
from tests.conftest import flags_of, refused, run_command


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
