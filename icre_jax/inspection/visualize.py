"""Which figures there are, which of them a network can have, and the folder they go to."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from icre_jax.data.listener import Listener
from icre_jax.engine.provenance import describe_machine
from icre_jax.errors import InputError
from icre_jax.figures.layout import has_scikit_learn
from icre_jax.figures.style import styled
from icre_jax.files import new_folder
from icre_jax.inspection import of_embeddings, of_images
from icre_jax.inspection.drawn import Drawn
from icre_jax.inspection.subjects import Subjects

FIGURES = ("distances", "features", "grad_cam", "masks", "attention", "enhancement", "cmc", "errors")


def choose_figures(only: str | None, out: Path) -> list[str]:
    """Names of `FIGURES`, in this order; all that can go wrong before a network is read.

    Args:
      only: names with commas; None for all.
      out: the folder to be.

    Raises:
      InputError: an unknown name, a library that is missing, or the folder exists.
    """
    named = list(FIGURES) if only is None else [name.strip() for name in only.split(",")]
    if any(name not in FIGURES for name in named) or len(set(named)) < len(named):
        raise InputError(f"--only is {only!r}; allowed are {', '.join(FIGURES)}, each at most once, with commas.")
    if out.exists():
        raise InputError(f"{out} exists already. Choose another --out or delete it.")
    if "features" in named and not has_scikit_learn():
        raise InputError(
            "The figure features needs scikit-learn, which is not installed. Install it with pip install "
            "'icre_jax[figures]', or name the other figures with --only."
        )
    return [name for name in FIGURES if name in named]


def visualize(
    subjects: Subjects,
    names: Sequence[str],
    out: Path,
    *,
    token: tuple[int, int] | None,
    listener: Listener,
    required: bool = False,
) -> list[str]:
    """Draw figures and write them, each as NAME.png, NAME.pdf and NAME.csv, with about.json beside them.

    Args:
      subjects: networks and test images.
      names: of `FIGURES`.
      out: a new folder; it appears when it is complete.
      token: (row, column) of the deep map whose attention is shown; None for one in the upper half.
      listener: who is told how it goes, and which figures the network cannot have.
      required: refuse those instead.

    Returns:
      The names of what was drawn.

    Raises:
      InputError: as said, or the folder cannot be written.
    """
    reasons = {name: why for name, why in _inapplicable(subjects).items() if name in names}
    if reasons:
        words = "; ".join(f"no {name}, as {why}" for name, why in reasons.items())
        if required:
            raise InputError(f"{subjects.network.label}: {words}. Leave {', '.join(reasons)} out of --only.")
        listener.say(f"{subjects.network.label}: {words}.")
    makers: Mapping[str, Callable[[Subjects], Drawn]] = {
        "distances": of_embeddings.distances,
        "features": of_embeddings.features,
        "grad_cam": of_images.grad_cam,
        "masks": of_images.masks,
        "attention": lambda subjects: of_images.attention(subjects, token),
        "enhancement": of_embeddings.enhancement,
        "cmc": of_embeddings.cmc,
        "errors": of_embeddings.errors,
    }
    drawn = [name for name in names if name not in reasons]
    try:
        with new_folder(out) as folder:
            for done, name in enumerate(drawn, start=1):
                with styled():
                    made = makers[name](subjects)
                made.write(folder, name)
                listener.advance("drawing", done, len(drawn))
            (folder / "about.json").write_text(json.dumps(_about(subjects), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"The figures cannot be written to {out}: {error}. Give a folder you may write to.") from error
    return drawn


def _inapplicable(subjects: Subjects) -> dict[str, str]:
    """Figure -> why this network cannot have it."""
    model = subjects.network.trained.settings.model
    reasons = {}
    if not model.mpfr.enabled:
        reasons["masks"] = "it has no MPFR"
    if not (model.sdce.enabled and (model.sdce.cross_attention or model.sdce.self_attention)):
        reasons["attention"] = "it has no attention of SDCE"
    if "enhancement" not in subjects.network.trained.parts:
        reasons["enhancement"] = "it adds nothing to its deep features"
    return reasons


def _about(subjects: Subjects) -> dict[str, object]:
    shown = [*subjects.states.values(), *subjects.others]
    network = subjects.network
    return {
        "data": subjects.data,
        "data_fingerprint": network.trained.prepared.fingerprint,
        "networks": [subject.describe() for subject in shown],
        **describe_machine(),
    }
