"""Say whether this machine can train: `python -m icre_jax.doctor [--config FILE] [--workdir DIR]`.

Versions, devices, disk, folders, data, extras, and one real training step of a tiny network. Without --config it looks
for what the built-in synthetic people need. Exit code 0: all is well; 5: something that is needed is broken, and the
report says what to do. Nothing is left behind.
"""

from collections.abc import Sequence
from pathlib import Path

from configs import synthetic
from icre_jax.health.examination import examine
from icre_jax.machine import command
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("doctor", __doc__)
    parser.add_argument("--workdir", type=command.path, help="of the run to be; default: runs/<name of the config>")
    flags, config_flags = command.split_config_flags(parser, arguments)
    settings = command.read_config(config_flags, default=synthetic.get_config)
    workdir = (flags.workdir or Path("runs") / settings.name).expanduser().resolve()
    broken = []
    with Screen() as screen:
        screen.say(f"What {settings.name} needs, in {workdir}:")
        for finding in examine(settings, workdir):
            screen.say(f"{finding.state:<7} {finding.what}: {finding.detail}")
            if finding.state == "broken":
                broken.append(finding.what)
        screen.say(f"Broken: {', '.join(broken)}." if broken else "All is well.")
    return command.EXIT_BROKEN if broken else 0


if __name__ == "__main__":
    command.run(main)
