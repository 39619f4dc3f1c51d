"""Check a data set on disk before anything is built on it.

    python -m icre_jax.verify --dataset sysu_mm01 --data_dir data/sysu_mm01

Reads layout and lists, counts, decodes every image, and lists all that is wrong. Exit code 0: no error; 2: errors.
"""

import os
import time
from collections.abc import Sequence

from icre_jax.data.verification import CHECKS, verify
from icre_jax.machine import command
from icre_jax.machine.screen import Screen


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = command.make_parser("verify", __doc__)
    parser.add_argument("--dataset", required=True, choices=tuple(CHECKS))
    parser.add_argument("--data_dir", required=True, type=command.path, help="the data set as it was delivered")
    parser.add_argument("--trial", type=int, metavar="K", help="of RegDB: check this trial only; default: all ten")
    parser.add_argument("--json", type=command.path, metavar="FILE", help="write findings and counts there as well")
    parser.add_argument(
        "--num_workers",
        type=command.workers,
        default=min(os.cpu_count() or 1, command.MOST_WORKERS),
        help="threads that decode; default: one per core",
    )
    command.add_pixels_flag(parser)
    flags = parser.parse_args(arguments)
    if flags.json is not None:
        command.require_writable(flags.json, "--json")
    began = time.perf_counter()
    with Screen() as screen:
        report = verify(
            flags.dataset,
            flags.data_dir,
            trial=flags.trial,
            num_workers=flags.num_workers,
            max_pixels=flags.max_pixels,
            progress=lambda done, total: screen.advance("decoding images", done, total),
        )
        screen.console.print(report.table())
        for kind, findings in (("note", report.notes), ("warning", report.warnings), ("error", report.errors)):
            for finding in findings:
                screen.say(f"{kind}: {finding}")
        if flags.json is not None:
            command.write_output(flags.json, report.to_json(), "--json")
        screen.say(
            f"{'Sound' if report.sound else 'Not sound'}: {len(report.errors)} errors, {len(report.warnings)} "
            f"warnings, {len(report.notes)} notes; {time.perf_counter() - began:.0f} s."
        )
    return 0 if report.sound else command.EXIT_BAD_INPUT


if __name__ == "__main__":
    command.run(main)
