"""Convert weights between published files (safetensors) and orbax checkpoints, both ways.

`python -m icre_jax.convert --from_safetensors FILE --out DIR` makes a checkpoint of our backbone from a torchvision or
timm ResNet. `python -m icre_jax.convert --workdir DIR --to_safetensors FILE` writes the backbone of a trained run (or
of such a checkpoint) with torchvision's names. What was written is read back and compared bit for bit.
"""

import argparse
import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from icre_jax import command
from icre_jax.checkpoint import Checkpoints
from icre_jax.errors import InputError
from icre_jax.models.resnet import NUM_BLOCKS, DualStreamResNet
from icre_jax.pretrained import read_backbone, write_backbone

# Of each direction: flags it needs, flags it may have.
_FLAGS = {
    "from_safetensors": ({"out"}, {"depth", "width", "specific_until"}),
    "to_safetensors": ({"workdir"}, {"checkpoint", "stem"}),
}


def import_weights(file: Path, out: Path, *, depth: int = 50, width: int = 64, specific_until: str = "stem") -> None:
    """Make an orbax checkpoint (step 0) of our backbone from a published ResNet.

    It holds {"params": {"backbone"}, "batch_stats": {"backbone"}} and the facts depth, width, specific_until, source
    and source_sha256.

    Args:
      file: as in `icre_jax.pretrained.read_backbone`.
      out: a new folder; it appears when it is complete.
      depth, width, specific_until: of the backbone, see `DualStreamResNet`.

    Raises:
      InputError: the file does not fit, or `out` exists or cannot be written.
    """
    if out.exists():
        raise InputError(f"{out} exists already. Choose another --out or delete it.")
    backbone = DualStreamResNet(depth=depth, width=width, specific_until=specific_until)
    like = jax.eval_shape(
        lambda: backbone.init(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), modality="paired", train=False)
    )
    loaded = read_backbone(file, like)
    variables = {name: {"backbone": tree} for name, tree in loaded.items()}
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    facts = {
        "depth": depth,
        "width": width,
        "specific_until": specific_until,
        "source": file.name,
        "source_sha256": sha256,
    }
    partial = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        with contextlib.closing(Checkpoints(partial)) as checkpoints:
            checkpoints.save_variables(0, variables, facts)
        with contextlib.closing(Checkpoints(partial, read_only=True)) as checkpoints:
            same = checkpoints.read_facts(0) == facts and _same(variables, checkpoints.read_variables(0))
        if not same:
            raise InputError(f"{out} did not read back as it was written; nothing was kept. Is the disk sound?")
        partial.rename(out)
    except OSError as error:
        raise InputError(f"Cannot write {out}: {error}. Choose another --out.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def export_weights(workdir: Path, file: Path, *, step: int | None = None, stem: str | None = None) -> tuple[int, int]:
    """Write the backbone of a checkpoint as torchvision would name it.

    Args:
      workdir: of a run, or a folder that `import_weights` made.
      file: a new file.
      step: which checkpoint; None for the latest.
      stem: see `icre_jax.pretrained.write_backbone`.

    Returns:
      The step, and the number of arrays written.

    Raises:
      InputError: no such checkpoint, or as `write_backbone`.
    """
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        if not checkpoints.steps:
            raise InputError(f"{workdir} holds no finished checkpoint yet.")
        chosen = checkpoints.steps[-1] if step is None else step
        variables = checkpoints.read_variables(chosen)
    backbone = {name: tree["backbone"] for name, tree in variables.items()}
    return chosen, write_backbone(file, backbone, stem=stem)


def main(arguments: Sequence[str]) -> int:
    """The command."""
    # Only what was said: a flag of the other direction is refused, not ignored.
    parser = argparse.ArgumentParser(
        prog="python -m icre_jax.convert", description=__doc__.split("\n")[0], argument_default=argparse.SUPPRESS
    )
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from_safetensors", type=Path, metavar="FILE", help="a torchvision or timm ResNet")
    direction.add_argument("--to_safetensors", type=Path, metavar="FILE", help="new file, with torchvision's names")
    importing = parser.add_argument_group("with --from_safetensors")
    importing.add_argument("--out", type=Path, metavar="DIR", help="new folder for the checkpoint")
    importing.add_argument("--depth", type=int, choices=tuple(NUM_BLOCKS), help="of the ResNet; default: 50")
    importing.add_argument("--width", type=_positive, help="channels of the stem; default: 64, the published networks")
    importing.add_argument(
        "--specific_until",
        choices=("stem", "layer1"),
        help="last part that each modality has for itself; default: stem",
    )
    exporting = parser.add_argument_group("with --to_safetensors")
    exporting.add_argument(
        "--workdir", type=Path, metavar="DIR", help="work folder of a run, or an --out of this command"
    )
    exporting.add_argument("--checkpoint", type=int, metavar="STEP", help="saved step; default: the latest")
    exporting.add_argument("--stem", choices=("visible", "infrared"), help="whose stem to write, where they differ")
    flags = vars(parser.parse_args(arguments))
    chosen = next(name for name in _FLAGS if name in flags)
    file = flags.pop(chosen)
    needed, allowed = _FLAGS[chosen]
    if missing := sorted(needed - flags.keys()):
        parser.error(f"--{chosen} needs --{missing[0]}")
    if foreign := sorted(flags.keys() - needed - allowed):
        parser.error(f"--{foreign[0]} does not go with --{chosen}")
    if chosen == "from_safetensors":
        import_weights(file, **flags)
        print(f"Backbone of {file} as a checkpoint: {flags['out']} (read back, equal)")
    else:
        step, num_arrays = export_weights(flags["workdir"], file, step=flags.get("checkpoint"), stem=flags.get("stem"))
        print(f"Backbone of step {step} of {flags['workdir']}: {file}, {num_arrays} arrays (read back, equal)")
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of channels")
    return int(text)


def _same(expected: Any, actual: Any) -> bool:
    """Equal names, types, shapes and bits."""

    def described(tree: Any) -> list[Any]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return [(path, leaf.dtype, leaf.shape, leaf.tobytes()) for path, leaf in leaves]

    return described(expected) == described(actual)


if __name__ == "__main__":
    command.run(main)
