"""The state of training: arrays, and nothing that is not an array."""

from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from icre_jax.models.network import ReIDNetwork

if TYPE_CHECKING:  # a network that is not trained any more needs no optimizer
    import optax

PERTURBATION = 1e-6  # relative; a weight in float32 is itself rounded by up to 6e-8
_PERTURBATION_STREAM = 1  # apart from the stream that the first weights are drawn from


@flax.struct.dataclass
class TrainState:
    """Everything a step reads and writes.

    Attributes:
      step: [] int32, finished steps.
      params: trained parameters, float32.
      batch_stats: running statistics of BatchNorm, float32.
      opt_state: state of the optimizer.
      ema: running averages of {"params", "batch_stats"}, float32; None where none are kept.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What is scored and exported, as `network.apply` takes it: the running averages where they are kept."""
        return {"params": self.params, "batch_stats": self.batch_stats} if self.ema is None else self.ema


def create_variables(seed: Array, *, network: ReIDNetwork, image_size: tuple[int, int]) -> dict[str, Any]:
    """{"params", "batch_stats"} of a network before the first step; arguments as of `create_state`. Pure."""
    images = jnp.zeros((2, *image_size, 3), jnp.float32)
    variables: Any = network.init(jax.random.key(seed), images, modality="paired", train=True)
    return variables


def create_state(
    seed: Array,
    *,
    network: ReIDNetwork,
    tx: "optax.GradientTransformation",
    image_size: tuple[int, int],
    ema: bool = False,
) -> TrainState:
    """State before the first step. Pure: call it under `jit` or `eval_shape`.

    Args:
      seed: [] int; one seed, one initialisation.
      network: the network.
      tx: the optimizer.
      image_size: (height, width) in pixels.
      ema: keep running averages.
    """
    variables = create_variables(seed, network=network, image_size=image_size)
    params, batch_stats = variables["params"], variables["batch_stats"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(params),
        ema={"params": params, "batch_stats": batch_stats} if ema else None,
    )


def perturb(state: TrainState, number: Array) -> TrainState:
    """Another start by next to nothing: every parameter times 1 + `PERTURBATION` z, z ~ N(0, 1). Pure.

    What two such runs differ by at their end is what training makes of rounding.

    Args:
      state: before the first step; its optimizer's state does not depend on the parameters.
      number: [] int, that z is drawn from; independent of the seed of the same number.
    """
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(number), _PERTURBATION_STREAM), len(leaves))
    params = jax.tree.unflatten(
        tree,
        [
            # Not leaf * (1 + ...): that would round z away.
            leaf + leaf * (PERTURBATION * jax.random.normal(key, leaf.shape, leaf.dtype))
            for key, leaf in zip(keys, leaves, strict=True)
        ],
    )
    ema = None if state.ema is None else state.ema | {"params": params}
    return state.replace(params=params, ema=ema)  # type: ignore[attr-defined]


@jax.jit
def _are_finite(leaves: list[Array]) -> list[Array]:
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]


def find_not_finite(state: TrainState) -> list[str]:
    """Names of the arrays that hold a number which is not finite, parameters first; waits for the device."""
    names, leaves = [], []
    for group in ("params", "batch_stats", "opt_state"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(state, group)):
            names.append(group + jax.tree_util.keystr(path))
            leaves.append(leaf)
    finite = jax.device_get(_are_finite(leaves))
    return [name for name, good in zip(names, finite, strict=True) if not good]


def num_parameters(params: Any) -> int:
    """Trained numbers in a tree (arrays or shapes)."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
