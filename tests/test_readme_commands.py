"""The commands of the README from every config, started as a user would, on small data and with a small network."""

import dataclasses
import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

from icre_jax.__main__ import COMMANDS
from icre_jax.data.sizes import count_training_ids
from icre_jax.datasets import CARDS
from icre_jax.evals import PROTOCOLS
from icre_jax.evals.results import read_results
from icre_jax.settings import flatten, from_json, parse
from tests.conftest import ROOT, TINY_NETWORK, refused, run_command
from tests.test_own_pictures import make_folders

# Of configs/synthetic.py every command has a file of its own: test_commands.py, test_export.py, test_describe.py, ...
# The baseline, because it compiles in half the time; all variants are one network to a command.
# One of them in `make test`, the others in `make test-all`; test_datasets.py has all of them without the commands.
CONFIGS = [
    *(pytest.param(name, marks=pytest.mark.long) for name in ("sysu_mm01", "llcm", "hitsz_vcm", "regdb")),
    "manifest",
]
# Commands that take no config, or train many: where they are started.
ELSEWHERE = {
    **{name: f"test_{name}.py" for name in ("ablate", "sweep", "noise", "score", "serve", "visualize")},
    **dict.fromkeys(("index", "search", "calibrate"), "test_identify.py"),
}
TRIAL = 3  # of RegDB
SHORT = (
    *TINY_NETWORK,
    "--config.schedule.num_epochs=1",
    "--config.sampling.num_ids_per_batch=4",
    "--config.sampling.num_images_per_id=2",
    "--config.evaluation.batch_size=16",
    "--config.evaluation.num_trials=2",
)


def succeed(module: str, *arguments: str) -> str:
    """What a command prints that does what it was told; nothing on standard error."""
    process = run_command(module, *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    return process.stdout


@dataclasses.dataclass(frozen=True)
class Case:
    """A config, and what `prepare` and `train` made of it and printed."""

    name: str
    data_dir: Path
    flags: tuple[str, ...]
    workdir: Path
    prepared: str
    trained: str


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture(params=CONFIGS)
def case(request, made, tmp_path_factory):
    """One for each config, made once for this file."""
    name = request.param
    if name not in made:
        folder = tmp_path_factory.mktemp(name)
        if name == "manifest":
            data_dir = make_folders(folder / "own", two_ways=True)
            succeed("icre_jax.prepare", "--make_manifest", str(data_dir))
        else:
            data_dir = request.getfixturevalue({"sysu_mm01": "tree"}.get(name, f"{name}_tree"))
        flags = ("--config", f"configs/{name}.py:baseline", *SHORT, f"--config.data.data_dir={data_dir}")
        flags = (*flags, f"--config.data.prepared_dir={folder / 'prepared'}")
        if name == "regdb":
            flags = (*flags, f"--config.data.trial={TRIAL}")
        prepared = succeed("icre_jax.prepare", *flags)
        trained = succeed("icre_jax.train", *flags, "--workdir", str(folder / "run"))
        made[name] = Case(name, data_dir, flags, folder / "run", prepared, trained)
    return made[name]


def test_verify_finds_nothing_wrong(case):
    shown = succeed("icre_jax.verify", "--dataset", case.name, "--data_dir", str(case.data_dir))
    assert "Sound: 0 errors" in shown


def test_prepare_counts_and_train_scores(case):
    assert "fingerprint" in case.prepared
    assert "Records: " in case.prepared
    assert "checking" not in case.trained  # the records are there
    protocol, card = PROTOCOLS[case.name], CARDS[case.name]
    results, provenance = read_results(case.workdir)
    assert [result.setting for result in results] == [setting.name for setting in protocol.settings]
    label = card.title if card.own_images else "synthetic people"
    assert {(result.protocol, result.dataset) for result in results} == {(protocol.name, label)}
    assert {result.num_trials for result in results} == {2 if protocol.settings[0].draw else 1}
    assert not card.own_images or {result.num_queries for result in results} == {6}
    trial = TRIAL if card.trials else None
    assert (provenance["config"], provenance["trial"]) == (f"{case.name}_baseline", trial)
    assert trial is None or f"{case.name} trial {trial}" in case.trained
    assert provenance["command"].startswith("python -m icre_jax.train --config")
    assert ", published" not in case.trained  # no paper has scored these people
    report = (case.workdir / "report.html").read_text()
    for words in (*(setting.name for setting in protocol.settings), label):
        assert words in report
        assert words in case.trained
    assert ("größe 0" in report) == card.own_images  # the names of files


def test_evaluate_repeats_the_numbers(case, tmp_path):
    shown = succeed("icre_jax", "evaluate", "--workdir", str(case.workdir), "--out", str(tmp_path))
    assert "Rank-1" in shown
    results, provenance = read_results(tmp_path)
    assert results == read_results(case.workdir)[0]
    # However it was started.
    assert provenance["command"].startswith("python -m icre_jax.evaluate --workdir")


def test_export_takes_the_network_away(case, tmp_path):
    shown = succeed("icre_jax.export", "--workdir", str(case.workdir), "--out", str(tmp_path / "out"))
    assert "to the same bits" in shown
    names = {"README.md", "SHA256SUMS", "classes.json", "config.json", "provenance.json", "variables"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert from_json((tmp_path / "out" / "config.json").read_text()).data.dataset == case.name


def test_describe_counts_the_people(case):
    shown = succeed("icre_jax.describe", *case.flags, "--measure_steps", "0")
    number, source = count_training_ids(from_json((case.workdir / "config.json").read_text()).data)
    assert f"{case.name}_baseline, {number} training identities ({source})" in shown
    if CARDS[case.name].own_images:
        assert (number, source) == (5, f"of {case.data_dir / 'manifest.csv'}")


def test_the_doctor_finds_all_well(case, tmp_path):
    assert "All is well." in succeed("icre_jax.doctor", *case.flags, "--workdir", str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("case", ["regdb"], indirect=True)
def test_a_checkpoint_belongs_to_its_trial(case, tmp_path):
    """Pointed at another it is refused before anything is prepared for that."""
    moved = Path(shutil.copytree(case.workdir, tmp_path / "moved"))
    changed = json.loads((moved / "config.json").read_text())
    changed["data"]["trial"] = 4
    (moved / "config.json").write_text(json.dumps(changed))
    process = run_command("icre_jax.evaluate", "--workdir", str(moved))
    refused(process, f"trained on regdb trial {TRIAL}", "says regdb trial 4", "training identities")
    assert not (Path(changed["data"]["prepared_dir"]) / "regdb" / "trial_4").exists()
    process = run_command("icre_jax.train", *case.flags, "--config.data.trial=4", "--workdir", str(case.workdir))
    refused(process, "another config", f"data.trial: {TRIAL} -> 4")


@pytest.mark.parametrize("case", ["manifest"], indirect=True)
def test_a_list_that_is_there_is_kept_and_a_direction_that_is_not_cannot_choose(case, tmp_path):
    refused(run_command("icre_jax.prepare", "--make_manifest", str(case.data_dir)), "manifest.csv is there already")
    folder = Path(shutil.copytree(case.data_dir, tmp_path / "own"))
    shutil.rmtree(folder / "query" / "infrared")
    (folder / "manifest.csv").unlink()
    succeed("icre_jax.prepare", "--make_manifest", str(folder))
    paths = (f"--config.data.data_dir={folder}", f"--config.data.prepared_dir={tmp_path / 'prepared'}")
    process = run_command("icre_jax.train", *case.flags, *paths, "--workdir", str(tmp_path / "run"))
    refused(process, "best_metric is 'infrared_to_visible/mAP'; allowed are visible_to_infrared/rank1")


def commands_of(file: Path) -> list[str]:
    """Our commands in a page, each as one line."""
    text = re.sub(r"\\\n\s*", " ", file.read_text(encoding="utf-8"))
    return re.findall(rf"icre_jax\.((?:{'|'.join(COMMANDS)})\b[^`\n#;]*)", text)


def test_the_readme_names_no_other_command():
    named = {line.split()[0] for line in commands_of(ROOT / "README.md")}
    here = set(re.findall(r'succeed\("icre_jax(?:\.|", ")(\w+)"', Path(__file__).read_text()))
    assert named <= here | ELSEWHERE.keys()
    assert len(named) > 7
    for name, file in ELSEWHERE.items():
        assert re.search(rf'(run_command|Popen|succeed)\([^()]*"icre_jax.{name}"', (ROOT / "tests" / file).read_text())


@pytest.mark.parametrize(
    "file", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda file: file.stem
)
def test_commands_in_the_pages_use_files_fields_and_flags_that_exist(file):
    fields = flatten(parse(importlib.import_module("configs.synthetic").get_config()))
    places = ("machine/command", "machine/hosts", "experiments/arguments", "engine/elsewhere", "fleet/cluster")
    shared = "".join((ROOT / "icre_jax" / f"{place}.py").read_text() for place in (*places, "inspection/subjects"))
    for line in commands_of(file):
        source = (ROOT / "icre_jax" / f"{line.split()[0]}.py").read_text() + shared
        for flag in re.findall(r"--([\w.]+)", line):
            if flag.startswith("config."):
                assert flag.removeprefix("config.") in fields, line
            else:
                assert f'"--{flag}"' in source, line
        for config in re.findall(r"configs/\w+\.py(?::\w+)?", line):
            module, _, variant = config.removesuffix(".py").replace("/", ".").replace(".py:", ":").partition(":")
            parse(importlib.import_module(module).get_config(variant))
