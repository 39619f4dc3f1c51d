"""Twenty thousand mutants in processes of limited memory, and the table of docs/attacks.md.

    pytest -m slow -n 0 -s tests/attacks/test_mutants.py --attacks-table table.md

The table is written there; without the option it is printed alone.
"""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.harness import PATIENCE
from tests.attacks.mutants import all_readers
from tests.conftest import ROOT

NUM_MUTANTS = int(os.environ.get("ICRE_JAX_MUTANTS", "20000"))
# Shares of the mutants: fewer for what takes long or has little in it, but of no class fewer than LEAST.
SHARES = collections.defaultdict(
    lambda: 4.0, {"checkpoint (orbax)": 0.5, "export (json, safetensors)": 1.0, "mark of a rendered tree (json)": 0.5}
)
LEAST = 300
HEADER = "| class | mutants | refused | read | worst memory |\n|---|---|---|---|---|\n"


def run_all(name: str, sound: Path, work: Path, count: int) -> list[dict]:
    """Outcomes of `count` mutants; a process that ends before its time is one, and the next goes on after it."""
    outcomes: list[dict] = []
    # Without the folder of compiled programs, which is none of what is attacked.
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    environment["TMPDIR"] = str(work)
    while len(outcomes) < count:
        command = [
            sys.executable,
            "-m",
            "tests.attacks.mutants",
            name,
            sound,
            work,
            len(outcomes),
            count - len(outcomes),
        ]
        process = subprocess.run(
            [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=120 + count * PATIENCE, env=environment,
        )  # fmt: skip
        lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
        assert lines, process.stderr[-3000:]
        outcomes += [line for line in lines if "ended" in line]
        if "begun" in lines[-1]:
            wrong = f"the process ended with {process.returncode}: {process.stderr[-300:]}"
            outcomes.append({"ended": lines[-1]["begun"], "what": "", "megabytes": 0, "refused": True, "wrong": wrong})
    return outcomes


@pytest.mark.slow
def test_twenty_thousand_mutants(attack, tmp_path, request):
    readers = all_readers()
    whole = sum(SHARES[name] for name in readers)
    lines, failures = [], {}
    for number, (name, reader) in enumerate(readers.items()):
        work = tmp_path / str(number)
        work.mkdir()
        count = max(LEAST, round(NUM_MUTANTS * SHARES[name] / whole) + 1)
        outcomes = run_all(name, attack(reader).sound, work, count)
        refused = sum(outcome["refused"] for outcome in outcomes)
        worst = max(outcome["megabytes"] for outcome in outcomes)
        lines.append(f"| {name} | {len(outcomes):,} | {refused:,} | {len(outcomes) - refused:,} | {worst:,} MiB |\n")
        failures |= {f"{name} {o['ended']} {o['what']}": o["wrong"] for o in outcomes if o["wrong"]}
        print(lines[-1], *list(failures.items())[-3:], flush=True)
    table = HEADER + "".join(lines)
    print(table)
    if target := request.config.getoption("--attacks-table"):
        Path(target).write_text(table)
    assert failures == {}
