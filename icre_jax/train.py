"""Train a network: `python -m icre_jax.train --config configs/synthetic.py --workdir DIR`.

Starting the same command again continues where the run stopped. The work folder holds config.json, metrics.jsonl,
timing.jsonl, checkpoints/ and, at the end, results.json, results.csv and report.html.
"""

from collections.abc import Sequence
from pathlib import Path

from icre_jax.machine import command, hosts
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.machine.screen import Screen
from icre_jax.training.loop import train_and_evaluate
from icre_jax.training.replay import replay


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("train", __doc__)
    parser.add_argument("--workdir", type=command.path, help="for everything; default: runs/<name of the config>")
    hosts.add_flags(parser)
    parser.add_argument(
        "--replay", type=command.path, metavar="FILE", help="run the step again at which the run of --workdir diverged"
    )
    flags, config_flags = command.split_config_flags(parser, arguments)
    if flags.replay:
        if flags.workdir is None or config_flags or flags.distributed:
            parser.error(
                "--replay needs the --workdir of the run, and takes its settings from there: no --config. One process "
                "does it: no --distributed."
            )
        with Screen() as screen:
            return 0 if replay(flags.workdir, flags.replay, screen) else command.EXIT_DIVERGED
    settings = command.read_config(config_flags)
    keep_compiled_programs()
    hosts.join(flags)
    outcome = train_and_evaluate(settings, flags.workdir or Path("runs") / settings.name)
    return 0 if outcome else command.EXIT_STOPPED


if __name__ == "__main__":
    command.run(main, leave=hosts.leave)
