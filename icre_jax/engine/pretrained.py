"""Published ResNet weights into our backbone, and our backbone back into torchvision's names.

Files are safetensors and nothing else: a pickle (.pth, .bin) executes code when it is read. Our layers have the
names of torchvision's, as those of timm's plain ResNets do; so a path in our tree tells its source key:

  target path                                            source key                  transform
  params       {visible,infrared}_stem.conv1.kernel      conv1.weight                OIHW -> HWIO
  params       {visible,infrared}_stem.bn1.scale, .bias  bn1.weight, .bias           none
  batch_stats  {visible,infrared}_stem.bn1.mean, .var    bn1.running_mean, _var      none
  ...          layerN.M.{convK, bnK, downsample.{0,1}}   the same, with these leaves
  ...          {visible,infrared}_layer1.M. ...          layer1.M. ...
  ...          ... .non_local* ...                       has none, keeps its own initialisation

Knowingly not used of a file: `fc.*` (ImageNet's classes) and `*.num_batches_tracked` (torch's counter).
"""

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.engine.tensors import open_tensors, write_tensors
from icre_jax.errors import InputError, join_findings
from icre_jax.files import whole_file

# Collection and path in our tree, for example ("params", "layer1", "0", "conv1", "kernel").
Target = tuple[str, ...]

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
_MODULE = re.compile(r"conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])")
_OWN_STREAM = re.compile(r"(visible|infrared)_(?=stem$|layer1$)")
_NOT_USED = re.compile(r"fc\.(weight|bias)|.+\.num_batches_tracked")
_MOST_FINDINGS = 1500  # a ResNet-101 has half as many arrays
_STORED_TYPES = ("F32", "F16", "BF16")
# Blocks of layer1 to layer4, and whether they are bottlenecks. 152 is no depth of ours, but one to recognise.
_DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}


def read_backbone(path: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of a torchvision or timm ResNet for our backbone.

    Args:
      path: a .safetensors file, stored as float32, float16 or bfloat16.
      like: {"params", "batch_stats"} of a `DualStreamResNet` with both its streams (arrays or shapes).

    Returns:
      The same trees with float32 NumPy arrays, each leaf its own memory and just what the file says (a running
      variance may be infinite, see `start_from`); leaves of non-local blocks are absent, see `overlay`.

    Raises:
      InputError: no safetensors file, or one of another network: every key that is missing, extra, of another shape or
        not usable, in one message.
    """
    targets = {target: leaf for target, leaf in _flatten(like).items() if not _keeps_its_own(target)}
    sources = {target: _source_key(target) for target in targets}
    findings = [f"{'.'.join(target)}: no published ResNet has this layer" for target, key in sources.items() if not key]
    wanted = {key: _torch_shape(targets[target].shape) for target, key in sources.items() if key}
    with _open(path) as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        findings += [f"{key}: missing, {list(wanted[key])} wanted" for key in sorted(wanted.keys() - found.keys())]
        extra = sorted(key for key in found.keys() - wanted.keys() if not _NOT_USED.fullmatch(key))
        findings += [f"{key}: extra, {list(found[key])}" for key in extra]
        tensors = {}
        for key in sorted(wanted.keys() & found.keys()):
            stored = file.get_slice(key).get_dtype()
            if found[key] != wanted[key]:
                findings.append(f"{key}: shape {list(found[key])} found, {list(wanted[key])} wanted")
            elif stored not in _STORED_TYPES:
                findings.append(f"{key}: stored as {stored}; float32, float16 or bfloat16 is read")
            else:
                tensors[key] = file.get_tensor(key).astype(np.float32)
                if not _usable(tensors[key], key):
                    findings.append(f"{key}: has values that are not finite")
    if findings:
        # Of a ResNet not shortened: what a file is, is seen from the whole list. The fix stands last, where a terminal
        # shows it.
        lines = join_findings(findings, limit=_MOST_FINDINGS)
        raise InputError(f"{path} does not fit the backbone:\n{lines}\n{_advice(found, wanted)}")
    return _unflatten({target: _to_ours(tensors[key]) for target, key in sources.items() if key})


def overlay(tree: Mapping[str, Any], loaded: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with the leaves of `loaded` in the place of its own; in new dictionaries, the given ones stay.

    Args:
      tree: nested dictionaries of anything.
      loaded: some of its leaves, at their paths; another path is a KeyError.
    """
    if unknown := loaded.keys() - tree.keys():
        raise KeyError(f"there is no {sorted(unknown)} in the tree")
    new = {name: overlay(tree[name], value) if isinstance(value, Mapping) else value for name, value in loaded.items()}
    return {**tree, **new}


def start_from(path: Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the whole network with the backbone of a file; everything else as it was.

    Args:
      path: as in `read_backbone`, which also names the errors.
      variables: {"params", "batch_stats"}, each with a "backbone" (arrays or shapes).

    Returns:
      New trees of the same structure; the leaves of the backbone are NumPy arrays on the host.

    Warns:
      UserWarning: a running variance is infinite; the channel then starts with scale 0, mean 0 and variance 1, which
        gives the same.
    """
    loaded = read_backbone(path, {name: tree["backbone"] for name, tree in variables.items()})
    _open_closed_channels(loaded, path)
    return overlay(variables, {name: {"backbone": tree} for name, tree in loaded.items()})


def write_backbone(path: Path, variables: Mapping[str, Any], *, stem: str | None = None) -> int:
    """Write a backbone as torchvision would name and lay it out: float32, OIHW, with running statistics, without `fc`.

    The file is read back and compared bit for bit before it appears under its name.

    Args:
      path: a new .safetensors file.
      variables: {"params", "batch_stats"} of a `DualStreamResNet`.
      stem: "visible" or "infrared": whose stem (and layer1, if it has its own) to write; None if both are equal.

    Returns:
      How many arrays were written.

    Raises:
      InputError: the file exists or cannot be written, the backbone has layers that torchvision's has not, or the
        modalities differ and `stem` chooses none.
    """
    if path.exists():
        raise InputError(f"{path} exists already. Choose another name or delete it.")
    leaves = {target: np.asarray(leaf, np.float32) for target, leaf in _flatten(variables).items()}
    foreign = [".".join(target) for target in leaves if _source_key(target) is None]
    if foreign:
        raise InputError(
            f"This backbone has {len(foreign)} arrays that a plain ResNet has no place for, and without them it is "
            f"another network:\n{join_findings(foreign)}\nNothing was written. Use the orbax checkpoint, or a run "
            "without these layers."
        )
    chosen = {target: leaf for target, leaf in leaves.items() if stem is None or _stream(target) in (None, stem)}
    tensors: dict[str, np.ndarray] = {}
    differing = []
    for target, leaf in chosen.items():
        key, tensor = str(_source_key(target)), _to_torch(leaf)
        if key in tensors and tensors[key].tobytes() != tensor.tobytes():
            differing.append(key)
        tensors[key] = tensor
    if differing:
        raise InputError(
            f"The visible and the infrared stream differ in {len(differing)} arrays, and a plain ResNet has one:\n"
            f"{join_findings(differing)}\nChoose with --stem visible or --stem infrared."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What stands under `path` is whole and was read back.
        with whole_file(path) as partial:
            # "pt" is what readers of this format look for to know whose layout it is.
            write_tensors(partial, tensors, {"format": "pt"})
            again = _flatten(read_backbone(partial, variables))
            if any(again[target].tobytes() != leaf.tobytes() for target, leaf in chosen.items()):
                raise InputError(f"{path} did not read back as it was written; nothing was kept. Is the disk sound?")
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error}. Choose another name.") from error
    return len(tensors)


def _source_key(target: Target) -> str | None:
    collection, first, *modules, leaf = target
    first = _OWN_STREAM.sub("", first)
    module = ".".join(modules if first == "stem" else [first, *modules])
    name = _LEAVES.get((collection, leaf))
    return f"{module}.{name}" if name and _MODULE.fullmatch(module) else None


def _stream(target: Target) -> str | None:
    match = _OWN_STREAM.match(target[1])
    return match[1] if match else None


def _usable(tensor: np.ndarray, key: str) -> bool:
    # A variance that does not fit into float16 is stored as infinity; BatchNorm can compute with that.
    return bool(np.all(np.isfinite(tensor) | (np.isposinf(tensor) & key.endswith(".running_var"))))


def _keeps_its_own(target: Target) -> bool:
    return any(part.startswith("non_local") for part in target)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)


def _open_closed_channels(loaded: dict[str, Any], path: Path) -> None:
    """Where a running variance is infinite, BatchNorm gives its bias whatever comes in. So does scale 0, and that can
    be trained, while a running average never leaves infinity. Changes `loaded`."""
    closed = {
        target[1:-1]: np.isposinf(leaf)
        for target, leaf in _flatten(loaded).items()
        if target[-1] == "var" and np.isposinf(leaf).any()
    }
    for module, channels in closed.items():
        for collection, leaf, value in (("params", "scale", 0), ("batch_stats", "mean", 0), ("batch_stats", "var", 1)):
            tree = loaded[collection]
            for name in module:
                tree = tree[name]
            tree[leaf][channels] = value
    if closed:
        names = sorted({str(_source_key(("params", *module, "scale"))) for module in closed})
        warnings.warn(
            f"{path}: the running variance beside {', '.join(names)} is infinite in some channels (too large for "
            "float16?), which shuts them. They start with scale 0 instead, which gives the same and can be trained.",
            stacklevel=3,
        )


def _to_ours(tensor: np.ndarray) -> np.ndarray:
    # A copy: the streams must not share memory with each other.
    return np.array(tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor, order="C")


def _to_torch(leaf: np.ndarray) -> np.ndarray:
    return leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf


def _open(path: Path) -> Any:
    advice = (
        "Only .safetensors is read, because pickles (.pth, .bin) execute code. timm publishes ImageNet weights in this "
        "form: the repository timm/resnet50.tv_in1k of the Hugging Face hub has a model.safetensors."
    )
    try:
        return open_tensors(path)
    except InputError as error:
        raise InputError(f"{error} {advice}") from error


def _depth(keys: Collection[str]) -> int | None:
    blocks = {tuple(key.split(".")[:2]) for key in keys if key.startswith("layer")}
    counts = tuple(sum(stage == f"layer{number}" for stage, _ in blocks) for number in (1, 2, 3, 4))
    return _DEPTHS.get((counts, "layer1.0.conv3.weight" in keys))


def _advice(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str:
    theirs, ours = _depth(found), _depth(wanted)
    if theirs and ours and theirs != ours:
        possible = f"set model.depth={theirs} (--depth {theirs} when converting), or " if theirs != 152 else ""
        return f"model.depth is {ours}, but this looks like a ResNet-{theirs}: {possible}give a ResNet-{ours}."
    widths = [shapes.get("conv1.weight", (0,))[0] for shapes in (found, wanted)]
    if all(widths) and widths[0] != widths[1]:
        return (
            f"model.width is {widths[1]}, but this file has width {widths[0]}: set model.width={widths[0]} "
            f"(--width {widths[0]} when converting), or give other weights."
        )
    return f"Give a plain ResNet-{ours} of torchvision or timm, such as timm/resnet{ours}.tv_in1k."


def _flatten(tree: Mapping[str, Any], prefix: Target = ()) -> dict[Target, Any]:
    flat: dict[Target, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, (*prefix, name)) if isinstance(value, Mapping) else {(*prefix, name): value}
    return flat


def _unflatten(flat: dict[Target, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for target, value in flat.items():
        folder = tree
        for name in target[:-1]:
            folder = folder.setdefault(name, {})
        folder[target[-1]] = value
    return tree
