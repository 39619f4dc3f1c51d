"""What the tests share: a small rendered tree, a small config, and a cache for compiled programs."""

import dataclasses
import importlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import synthetic as synthetic_config
from icre_jax import rendering
from icre_jax.data.prepared import PreparedDataset, open_or_prepare

# Before anything imports jax: the same tiny networks are compiled again and again here, in this process and in those
# that the tests start. One folder for the machine's user; a program is found by what it computes.
COMPILED = Path(
    os.environ.get("JAX_COMPILATION_CACHE_DIR", Path(tempfile.gettempdir()) / f"icre_jax_tests_{os.getuid()}")
)
assert "jax" not in sys.modules, "jax reads these when it is imported"
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": str(COMPILED),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PLATFORMS": "cpu",
}

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

PEOPLE = rendering.SyntheticSettings(
    seed=3,
    difficulty="easy",
    num_train_ids=6,
    num_val_ids=2,
    num_test_ids=4,
    num_images_per_camera=3,
    image_size=(64, 32),
)


# LLCM and RegDB have no validation list.
OTHER_PEOPLE = dataclasses.replace(PEOPLE, num_val_ids=0, num_train_ids=5, num_test_ids=5, num_images_per_camera=2)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--attacks-table", metavar="FILE", help="where tests/attacks/test_mutants.py writes its table")
    parser.addoption("--soak-minutes", type=float, default=5, help="how long tests/test_soak.py disturbs a run")


@pytest.fixture(scope="session")
def llcm_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered LLCM tree, to read only."""
    # The root's name holds what a careless parser would split on.
    folder = tmp_path_factory.mktemp("cam7_c03_people") / "tree"
    rendering.write_tree("llcm", folder, OTHER_PEOPLE)
    return folder


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered LLCM tree of people whom the small configs do not train on, to read only."""
    folder = tmp_path_factory.mktemp("people") / "strangers"
    rendering.write_tree("llcm", folder, dataclasses.replace(OTHER_PEOPLE, seed=4))
    return folder


@pytest.fixture(scope="session")
def regdb_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered RegDB tree, to read only."""
    folder = tmp_path_factory.mktemp("people") / "tree"
    rendering.write_tree("regdb", folder, OTHER_PEOPLE)
    return folder


# Of thirteen frames twelve are a track that is read, and one is a track that is too short.
VCM_PEOPLE = dataclasses.replace(
    PEOPLE, num_val_ids=0, num_train_ids=4, num_test_ids=4, num_images_per_camera=13, image_size=(32, 16)
)


@pytest.fixture(scope="session")
def hitsz_vcm_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered HITSZ-VCM tree, to read only."""
    # The root's name holds what a careless parser would look for.
    folder = tmp_path_factory.mktemp("D3T1F6_0001M2_people") / "tree"
    rendering.write_tree("hitsz_vcm", folder, VCM_PEOPLE)
    return folder


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered SYSU-MM01 tree. Read only: a test that damages it copies it first."""
    folder = tmp_path_factory.mktemp("people") / "tree"
    rendering.write_tree("sysu_mm01", folder, PEOPLE)
    return folder


@pytest.fixture(scope="session")
def prepared(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return open_or_prepare("sysu_mm01", tree, tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def config(tree: Path, prepared: PreparedDataset) -> ConfigDict:
    """Three epochs of two steps on the small tree with a network of a few thousand parameters."""
    config = synthetic_config.get_config()
    config.data.data_dir = str(tree)
    config.data.prepared_dir = str(prepared.folder.parent.parent)
    config.data.synthetic.update(
        seed=PEOPLE.seed,
        difficulty=PEOPLE.difficulty,
        num_train_ids=PEOPLE.num_train_ids,
        num_val_ids=PEOPLE.num_val_ids,
        num_test_ids=PEOPLE.num_test_ids,
        num_images_per_camera=PEOPLE.num_images_per_camera,
        image_size=PEOPLE.image_size,
        num_workers=0,
    )
    config.data.image_size = (32, 16)
    config.data.store_resized = False
    config.sampling.num_ids_per_batch = 4
    config.sampling.num_images_per_id = 8
    config.model.width = 4
    config.model.mpfr.channels = 8
    config.model.sdce.width = 8
    config.model.sdce.num_heads = 2
    config.loss.icg_weight = 1.0
    config.optimizer.ema_decay = 0.0
    config.schedule.num_epochs = 3
    config.schedule.warmup_epochs = 1
    config.schedule.boundaries = (2,)
    config.schedule.factors = (0.1,)
    config.checkpoint.every_epochs = 1
    config.evaluation.every_epochs = 1
    config.evaluation.batch_size = 16
    config.evaluation.num_trials = 2
    config.logging.every_steps = 1
    return config


@pytest.fixture(scope="module")
def compiled():
    """Stands in for `assemble`: runs of one file that compute the same share what was compiled."""
    from tests.small_runs import CompiledRuns  # imports jax

    return CompiledRuns()


@pytest.fixture(scope="module")
def reference() -> list:
    """What the first run of a file leaves for the others to be compared with; empty before."""
    return []


@pytest.fixture
def empty_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process leave an empty report, which is quicker."""
    from icre_jax.training import finish

    monkeypatch.setattr(finish, "write_page", lambda session, *_: (session.run.workdir / "report.html").touch())


@pytest.fixture
def small(config: ConfigDict, compiled, monkeypatch: pytest.MonkeyPatch, empty_report: None) -> ConfigDict:
    """The small config for runs in this process, which share what was compiled and leave an empty report."""
    from icre_jax.training import session

    monkeypatch.setattr(session, "assemble", compiled)
    return config


@pytest.fixture
def one_epoch(config: ConfigDict) -> list[str]:
    """Flags of a run of one epoch, for `icre_jax.experiments`; without the switches that rows of the ablation set."""
    config.schedule.num_epochs = 1
    config.schedule.warmup_epochs = 0
    config.schedule.boundaries = ()
    config.schedule.factors = ()
    _, file, *fields = flags_of(config)
    return [f"--config={file}", *(flag for flag in fields if ".enabled=" not in flag and ".icg_weight=" not in flag)]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch):
    """Stands in for the commands that an ablation and a sweep start."""
    from tests.stand_in import StandIn

    return StandIn(monkeypatch)


# The network of the fixture `config`, for any config file.
TINY_NETWORK = (
    "--config.data.image_size=(32,16)",
    "--config.model.depth=18",
    "--config.model.width=4",
    "--config.model.mpfr.channels=8",
    "--config.model.sdce.width=8",
    "--config.model.sdce.num_heads=2",
)


def flags_of(config: ConfigDict, file: str = "configs/synthetic.py") -> list[str]:
    """The command-line flags that turn `file` into `config`; what it says of synthetic people only for synthetic.py."""
    default = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config()
    flags = ["--config", file]
    for group, values in config.items():
        if not isinstance(values, ConfigDict):
            if values != default[group]:
                flags.append(f"--config.{group}={values}")
            continue
        for name, value in values.items():
            if isinstance(value, ConfigDict):
                if default[group][name] is not None:
                    flags += [f"--config.{group}.{name}.{key}={item}" for key, item in value.items()]
            elif value != default[group][name]:
                flags.append(f"--config.{group}.{name}={value}")
    return flags


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def run_command(module: str, *arguments: str, num_devices: int = 1) -> subprocess.CompletedProcess:
    """Start a command as a user would, on simulated devices; text of both streams is kept."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "160", "JAX_NUM_CPU_DEVICES": str(num_devices)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def refused(process: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, the words on standard error, and no traceback."""
    assert process.returncode == 2, process.stdout + process.stderr
    for word in words:
        assert word in process.stderr, process.stderr
    assert "Traceback" not in process.stderr
