"""The commands of the package: `python -m icre_jax` lists them, `python -m icre_jax COMMAND ...` starts one."""

import ast
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import icre_jax

COMMANDS = (
    "train",
    "evaluate",
    "export",
    "prepare",
    "verify",
    "describe",
    "doctor",
    "ablate",
    "average",
    "score",
    "convert",
)


def describe_commands() -> str:
    """One line for each command: its name, and the first line of its module's documentation. Nothing is imported."""
    lines = []
    for name in COMMANDS:
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        lines.append(f"  {name:<10} {first.split(': `python')[0].rstrip('.')}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a command, or say which there are; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    usage = f"icre_jax {icre_jax.__version__}\n\nCommands, as `python -m icre_jax.COMMAND` or `icre_jax COMMAND`:\n"
    if words in ([], ["--help"], ["-h"]):
        print(f"{usage}{describe_commands()}\n\nEach of them says more with --help.")
        return 0
    if words == ["--version"]:
        print(icre_jax.__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"error: there is no command {words[0]!r}. {usage}{describe_commands()}", file=sys.stderr)
        return 2
    sys.argv = [f"icre_jax {words[0]}", *words[1:]]
    runpy.run_module(f"icre_jax.{words[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
