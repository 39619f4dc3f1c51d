"""Check a data set on disk before anything is built on it.

    python -m icre_jax.verify --dataset sysu_mm01 --data_dir data/sysu_mm01

Reads layout and lists, counts, decodes every picture, and lists all that is wrong. Exit code 0: no error; 2: errors.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from icre_jax import command
from icre_jax.data.verification import CHECKS, Report, verify
from icre_jax.errors import InputError
from icre_jax.runlog import Screen, open_console


def show(report: Report, screen: Screen) -> None:
    """The table of counts, then every finding."""
    table = Table(title=Text(f"{report.dataset} at {report.data_dir}"))
    for column in ("part", "counted", "expected", "found"):
        table.add_column(column, justify="left" if column in ("part", "counted") else "right")
    for count in report.counts:
        expected = "-" if count.expected is None else f"{count.expected:,}"
        wrong = count.expected not in (None, count.found)
        table.add_row(
            Text(count.part),
            count.what,
            expected,
            f"{count.found:,}" + (" !" if wrong else ""),
            style="red" if wrong else "",
        )
    screen.console.print(table)
    for title, findings in (("note", report.notes), ("warning", report.warnings), ("error", report.errors)):
        for finding in findings:
            screen.say(f"{title}: {finding}")


def write_json(report: Report, path: Path) -> None:
    """Findings and counts as JSON.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        text = json.dumps({"sound": report.sound} | dataclasses.asdict(report), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--json {path} cannot be written: {error}. Name a file in a folder you may write to."
        ) from error


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m icre_jax.verify", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", required=True, choices=tuple(CHECKS))
    parser.add_argument("--data_dir", required=True, type=Path, help="the data set as it was delivered")
    parser.add_argument("--trial", type=int, metavar="K", help="of RegDB: check this trial only; default: all ten")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write findings and counts there as well")
    parser.add_argument(
        "--num_workers", type=int, default=os.cpu_count() or 1, help="threads that decode; default: one per core"
    )
    flags = parser.parse_args(arguments)
    screen = Screen(open_console())
    began = time.perf_counter()
    try:
        report = verify(
            flags.dataset,
            flags.data_dir,
            trial=flags.trial,
            num_workers=flags.num_workers,
            progress=lambda done, total: screen.advance("decoding pictures", done, total),
        )
    finally:
        screen.close()
    show(report, screen)
    if flags.json is not None:
        write_json(report, flags.json)
    verdict = "Sound" if report.sound else "Not sound"
    screen.say(
        f"{verdict}: {len(report.errors)} errors, {len(report.warnings)} warnings, {len(report.notes)} notes; "
        f"{time.perf_counter() - began:.0f} s."
    )
    return 0 if report.sound else command.EXIT_BAD_INPUT


if __name__ == "__main__":
    command.run(main)
