"""Where the parameters of a network are, and what size its maps have."""

from dataclasses import dataclass

from icre_jax.engine.state import num_parameters
from icre_jax.models.network import ReIDNetwork
from icre_jax.models.shapes import trace_modules


@dataclass(frozen=True)
class ModuleRow:
    """One module.

    Attributes:
      name: path in the parameter tree, as "mpfr/projection_1".
      is_total: it is the sum of the rows whose name begins with its own.
      num_parameters: trained numbers in it.
      share: of those of the whole network.
      output_shape: of one image; [h, w, C], or [L, C] for L tokens, or [D].
    """

    name: str
    is_total: bool
    num_parameters: int
    share: float
    output_shape: tuple[int, ...]


def list_modules(network: ReIDNetwork, image_size: tuple[int, int]) -> list[ModuleRow]:
    """The parts of a network in the order in which they run; non-local blocks apart from the stage that holds them.

    Args:
      network: the network.
      image_size: (height, width) in pixels.

    Returns:
      A total per part (backbone, mpfr, sdce, head, ...), followed by the rows that add up to it.
    """
    shapes, params = trace_modules(network, image_size)
    held: dict[tuple[str, ...], int] = {}
    for path in shapes:
        tree = params
        for name in path:
            tree = tree.get(name, {})
        held[path] = num_parameters(tree)
    blocks = [path for path in shapes if path[-1].startswith("non_local_")]
    paths = [path for path in shapes if len(path) <= 2 or path in blocks]
    total = num_parameters(params)
    rows = []
    for path in paths:
        apart = sum(held[block] for block in blocks if path == block[:-1])
        has_parts = len(path) == 1 and any(other[:1] == path and len(other) == 2 for other in paths)
        number = held[path] - apart
        rows.append(ModuleRow("/".join(path), has_parts, number, number / total, shapes[path]))
    return rows
