"""Say whether this machine can train: `python -m icre_jax.doctor [--config FILE] [--workdir DIR]`.

Versions, devices, disk, folders, data, extras, and one real training step of a tiny network. Without --config it looks
for what the built-in synthetic people need. Exit code 0: all is well; 5: something that is needed is broken, and the
report says what to do. Nothing is left behind.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from configs import synthetic
from icre_jax import command
from icre_jax.compile_cache import keep_compiled_programs
from icre_jax.health.findings import Finding
from icre_jax.health.installed import check_devices, check_extras, check_versions
from icre_jax.health.places import check_data, check_folder, check_space, only_reads_records
from icre_jax.health.trial_step import check_step
from icre_jax.runlog import Screen, open_console
from icre_jax.settings import Settings, parse, resolve_paths


def examine(settings: Settings, workdir: Path) -> Iterator[Finding]:
    """Everything that a run of `settings` in `workdir` needs, one finding after the other."""
    yield from check_versions()
    devices = check_devices()
    yield devices
    yield from check_extras({"tensorboard"} if settings.logging.tensorboard else set())
    yield check_folder("workdir", workdir, "Choose another --workdir.")
    yield _guard("disk", lambda: check_space(settings, workdir))
    if settings.data.synthetic is not None and not Path(settings.data.data_dir).is_dir():
        yield check_folder("data folder", Path(settings.data.data_dir), "Choose another --config.data.data_dir.")
    if not only_reads_records(settings.data):
        yield check_folder("records", Path(settings.data.prepared_dir), "Choose another --config.data.prepared_dir.")
    cache = keep_compiled_programs()
    if cache and "://" not in str(cache):
        yield check_folder("compile cache", cache.resolve(), "Set JAX_COMPILATION_CACHE_DIR to another folder.")
    yield _guard("data", lambda: check_data(settings))
    if devices.state == "broken":
        yield Finding("one step", "broken", "not tried: there is no device")
    else:
        yield _guard("one step", lambda: check_step(settings))


def _guard(what: str, check: Callable[[], Finding]) -> Finding:
    """Whatever goes wrong is what was to be found out; the other checks are still made."""
    try:
        return check()
    except Exception as error:
        return Finding(what, "broken", f"{type(error).__name__}: {error}")


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, help="of the run to be; default: runs/<name of the config>")
    flags, config_flags = command.split_config_flags(parser, arguments)
    settings = command.read_config(config_flags) if config_flags else parse(synthetic.get_config())
    settings = resolve_paths(settings)
    workdir = (flags.workdir or Path("runs") / settings.name).expanduser().resolve()
    broken = []
    with contextlib.closing(Screen(open_console())) as screen:
        screen.say(f"What {settings.name} needs, in {workdir}:")
        for finding in examine(settings, workdir):
            screen.say(f"{finding.state:<7} {finding.what}: {finding.detail}")
            if finding.state == "broken":
                broken.append(finding.what)
        screen.say(f"Broken: {', '.join(broken)}." if broken else "All is well.")
    return command.EXIT_BROKEN if broken else 0


if __name__ == "__main__":
    command.run(main)
