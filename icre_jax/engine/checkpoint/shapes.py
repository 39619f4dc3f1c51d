"""Of which network a checkpoint is: names and shapes of its arrays, looked at before any of them is read."""

from typing import Any

import jax

from icre_jax.errors import InputError


def require_shapes(what: str, saved: Any, wanted: Any, fix: str) -> None:
    """Raise `InputError` unless two trees have arrays of the same names and shapes.

    Args:
      what: was saved, for people.
      saved, wanted: trees of anything with a shape.
      fix: what to do where they differ.
    """
    there, needed = _shapes(saved), _shapes(wanted)
    if there == needed:
        return
    keys = sorted(key for key in there.keys() | needed.keys() if there.get(key) != needed.get(key))
    lines = [f"  {key[1:]}: saved {there.get(key)}, this network {needed.get(key)}" for key in keys[:10]]
    raise InputError(f"{what} is of another network; {len(keys)} arrays differ:\n" + "\n".join(lines) + f"\n{fix}")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))[0]
    return {_key(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}


def _key(path: tuple[Any, ...]) -> str:
    # Saved trees spell attributes and positions as dictionary keys.
    parts = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))) for entry in path)
    return "".join(f".{part}" for part in parts)
