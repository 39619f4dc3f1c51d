"""Training that starts from the network of another run: what is taken over, and when that is refused."""

from typing import Any

import jax

from icre_jax.data.listener import Listener
from icre_jax.data.prepared import PreparedDataset
from icre_jax.engine.sources import sources_of
from icre_jax.engine.stored import Stored, flatten, hash_network, unflatten
from icre_jax.engine.unseen import require_unseen
from icre_jax.errors import InputError, join_findings
from icre_jax.settings import flatten as fields_of
from icre_jax.settings.fields import Settings

# Fields of the model that say how it is computed or where it starts, not which network it is.
_FREE = ("dtype", "precision", "remat", "neck_init_std", "enhancement.gate_init")

# Fields of SDCE that count where one of these of its steps is there.
_OF_STEPS = {
    "sdce.num_heads": ("cross_attention", "self_attention"),
    "sdce.roles": ("cross_attention",),
    "sdce.residual": ("cross_attention",),
    "sdce.mlp_ratio": ("refinement",),
}


def require_same_model(stored: Stored, settings: Settings) -> None:
    """Refuse a network that is another one than the config's.

    Raises:
      InputError: naming every field in which they differ.
    """
    changed = _differences(fields_of(stored.settings.model), fields_of(settings.model))
    if changed:
        raise InputError(
            f"init_from is {settings.init_from}, whose network is another one than this config's:\n"
            f"{join_findings(changed)}\nGive the config the fields of that network, or start from another."
        )


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    return [
        f"model.{name}: {theirs[name]} -> {ours[name]}"
        for name in ours
        if theirs[name] != ours[name] and _counts(name, theirs) and _counts(name, ours)
    ]


def _counts(name: str, model: dict[str, Any]) -> bool:
    """Whether the network of a model, all of its fields by name, is another one with another value of this field.

    What `icre_jax.models.network` does not read does not count; a switch that decides what is read always does.
    """
    if name in _FREE:
        return False
    control = model["enhancement.control"]
    if name == "sdce.width" and control == "local":
        return True  # the width of that branch, too
    group, _, field = name.partition(".")
    if group in ("mpfr", "sdce") and field != "enabled" and not model[f"{group}.enabled"]:
        return False
    if name in ("enhancement.join", "enhancement.placement"):
        return control != "none" or model["mpfr.enabled"] or model["sdce.enabled"]
    if name == "non_local_channels":
        return any(model["non_local_blocks"])
    steps = _OF_STEPS.get(name)
    return steps is None or any(model[f"sdce.{step}"] for step in steps)


def require_new_test_people(stored: Stored, settings: Settings, prepared: PreparedDataset, listener: Listener) -> None:
    """Refuse a network that has learned from people whom the run that starts from it will be tested on.

    Args:
      stored: the network.
      settings, prepared: of the run, and its data.
      listener: who is told how it goes.

    Raises:
      InputError: as `icre_jax.engine.unseen.require_unseen`; or the run chooses its best checkpoint by validation
        identities that the network was trained on.
    """
    if stored.about["data_fingerprint"] != prepared.fingerprint:
        require_unseen(stored, settings.data, prepared, listener)
    if not settings.checkpoint.best_metric.startswith("val/"):
        return
    for source in sources_of(stored.settings, stored.about):
        if source.data_fingerprint == prepared.fingerprint and "val" in source.train_splits:
            raise InputError(
                f"checkpoint.best_metric is {settings.checkpoint.best_metric!r}, a score of the validation identities, "
                f"and the network of {settings.init_from} was trained on them. Choose by a test score, or start from "
                "another network."
            )


def inherit(stored: Stored, like: Any, *, classifier: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a new network takes over from a trained one of the same model.

    Args:
      stored: the trained one.
      like: variables of the new one (arrays or shapes).
      classifier: take the classifier too, whose classes are then the same identities; else it starts anew, as does
        always the auxiliary one of `loss.guide_weight`.

    Returns:
      Arrays by collection, for `icre_jax.engine.pretrained.overlay`; and what is known of them, JSON-able: "step",
      "network_sha256", "classifier" (whether it was taken), "data" (in words), "pretrained" (the name of the file
      that it, or the one it started from, had its backbone from), and "sources", see `icre_jax.engine.sources.Source`.
    """
    theirs, ours = flatten(stored.variables), flatten(like)
    new = ("params.guide_head.", "batch_stats.guide_head.", *(() if classifier else ("params.head.classifier.",)))
    taken = {name: jax.device_get(leaf) for name, leaf in theirs.items() if name in ours and not name.startswith(new)}
    sources = sources_of(stored.settings, stored.about)
    facts = {
        "step": stored.step,
        "network_sha256": hash_network(stored.settings, stored.variables),
        "classifier": classifier,
        "data": sources[0].describe(),
        "pretrained": stored.about["pretrained"] or (stored.about.get("init_from") or {}).get("pretrained"),
        "sources": [source.to_facts() for source in sources],
    }
    return unflatten(taken), facts
