"""Mutants of the files of one reader, in a process of its own whose memory is limited: a line of JSON for each.

    python -m tests.attacks.mutants NAME SOUND WORK FIRST COUNT

SOUND is the folder that the reader's `make` filled, WORK a folder for the copy. A line of the number comes before the
attack and one of its outcome after it, so that an attack that ends the process can be named.
"""

import importlib
import json
import resource
import sys
import warnings
from pathlib import Path

from tests.attacks.harness import MOST_MEMORY, Attacks, Reader

MODULES = ("images", "archives", "json", "lists", "weights", "indexes", "requests")


def all_readers() -> dict[str, Reader]:
    """Every class, by name."""
    modules = [importlib.import_module(f"tests.attacks.test_{name}") for name in MODULES]
    return {reader.name: reader for module in modules for reader in module.READERS}


def main(name: str, sound: str, work: str, first: str, count: str) -> None:
    """The process."""
    warnings.simplefilter("error")  # as in all tests
    attacks = Attacks(all_readers()[name], Path(sound), Path(work) / "copy")
    # Below this no more than all the memory that the process may ever have: also what libraries take by themselves.
    resource.setrlimit(resource.RLIMIT_DATA, (2 * MOST_MEMORY, 2 * MOST_MEMORY))
    for number in range(int(first), int(first) + int(count)):
        print(json.dumps({"begun": number}), flush=True)
        outcome = attacks.mutant(number)
        what = next(reversed(attacks.outcomes)) if outcome.wrong else ""
        attacks.outcomes.clear()
        line = {"megabytes": outcome.megabytes, "refused": outcome.said is not None, "wrong": outcome.wrong}
        print(json.dumps({"ended": number, "what": what} | line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
