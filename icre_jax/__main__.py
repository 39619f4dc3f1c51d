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
    "visualize",
    "export",
    "embed",
    "index",
    "search",
    "calibrate",
    "serve",
    "prepare",
    "verify",
    "describe",
    "doctor",
    "ablate",
    "sweep",
    "noise",
    "average",
    "score",
    "convert",
)
_EXIT_BAD_INPUT = 2  # as `icre_jax.machine.command` has it, which takes half a second to import


def describe_commands() -> str:
    """One line for each command: its name, and the first line of its module's documentation. Nothing is imported."""
    lines = []
    for name in COMMANDS:
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        lines.append(f"  {name:<10} {first.split(': `python')[0].rstrip('.')}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a command, which leaves the process with its own exit code; or say which there are, and return one."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = f"Commands, as `icre_jax COMMAND` or `python -m icre_jax.COMMAND`:\n{describe_commands()}"
    if not words or words[0] in ("--help", "-h"):
        print(f"icre_jax {icre_jax.__version__}\n\n{commands}\n\nEach of them says more with --help.")
        return 0
    if words[0] == "--version":
        print(icre_jax.__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"error: There is no command {words[0]!r}. {commands}", file=sys.stderr)
        return _EXIT_BAD_INPUT
    sys.argv = [sys.argv[0], *words[1:]]
    # As `python -m` would start it: results name their command by its module, and worker processes look for it.
    runpy.run_module(f"icre_jax.{words[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
