"""The work folder of a run: recognised before the run begins, claimed by its config.json when it does."""

from pathlib import Path

from icre_jax.errors import InputError, join_findings
from icre_jax.files import write_file
from icre_jax.settings import differences, read_config_json, to_json
from icre_jax.settings.fields import Settings


def open_workdir(workdir: Path, settings: Settings) -> Path:
    """Make the folder, or recognise it as that of the same run; its absolute path.

    The config is not written yet (`write_config`): a run that cannot begin must not claim the folder.

    Raises:
      InputError: it cannot be written, or holds a run of other settings.
    """
    workdir = workdir.expanduser().resolve()
    config_file = workdir / "config.json"
    if config_file.is_file():
        changed = differences(read_config_json(config_file), settings)
        if changed:
            raise InputError(
                f"{workdir} holds a run of another config:\n{join_findings(changed)}\n"
                "Use the same settings to continue it, or another --workdir."
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to the workdir {workdir}: {error}. Choose another --workdir.") from error
    return workdir


def write_config(workdir: Path, settings: Settings) -> None:
    """Write config.json, whole or not at all.

    Raises:
      InputError: the folder cannot be written.
    """
    try:
        write_file(workdir / "config.json", to_json(settings), locked=True)
    except OSError as error:
        raise InputError(f"Cannot write to the workdir {workdir}: {error}. Choose another --workdir.") from error
