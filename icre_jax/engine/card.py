"""The model card of an export: what the network is, what it was made of, what it may be used for.

Written from provenance alone. Its first lines are metadata as the Hugging Face hub reads it (YAML, of which JSON is a
part).
"""

import json
from typing import Any

from icre_jax.datasets import CARDS
from icre_jax.engine.provenance import RENDERED
from icre_jax.engine.state import num_parameters
from icre_jax.engine.stored import TENSORS, VARIABLES, Stored
from icre_jax.evals.results import METRIC_NAMES, ProtocolResult
from icre_jax.evals.tables import condition_parts

_TAGS = ["person-re-identification", "visible-infrared", "image-retrieval", "jax", "flax"]
_FILES = {
    "orbax": f"`{VARIABLES}/`, an orbax checkpoint",
    "safetensors": f"`{TENSORS}`",
    "stablehlo": "`visible.stablehlo`, `infrared.stablehlo`, programs that JAX runs by itself",
}
_USE = """\
To compare methods of visible-infrared person re-identification; to rank a gallery of cropped images of people by
likeness to a query from the other kind of camera, for a person to look at and decide. Before it is used on images of
one's own, it has to be scored on labelled images of the same cameras: a score moves with the place, the cameras and
the number of people."""
_NOT = """\
- To decide by itself that two images show the same person, or to let anything happen to anybody without a person who
  looks and is answerable. The first of a ranking is the most alike in the gallery, also if the person is not in it.
- To identify or follow people without a legal basis and their knowledge, in real time or later; to draw conclusions
  about origin, health, belief or anything else but likeness. What it compares is mostly clothing and build.
- Where it matters on whom errors fall: whether they fall more on some people than on others has not been measured."""


def write_card(stored: Stored) -> str:
    """The text of README.md.

    Args:
      stored: what is exported; `about` holds "network_sha256" of each form, "compared_on", and with float16 kernels
        "float16_cosine_distance", beside what `icre_jax.engine.provenance.describe_run` gives.
    """
    about = stored.about
    results = [ProtocolResult(**record) for record in about.get("results", [])]
    sections = [
        _metadata(stored, results),
        f"# {about['config']}: people in visible and infrared images",
        _introduction(stored),
        "## Use\n\n" + _usage(stored),
        "## How it was made\n\n" + _facts(stored),
        "## Scores\n\n" + _scores(about, results),
        "## Data and its terms\n\n" + _data(about),
        f"## Intended use\n\n{_USE}",
        f"## Not intended\n\n{_NOT}",
        "## Licences\n\n" + _licences(about),
        "## How these files were checked\n\n" + _checks(about),
    ]
    return "\n\n".join(sections) + "\n"


def is_free(about: dict[str, Any]) -> bool:
    """Whether nobody else has a say in it: rendered people, and no weights of others to start from."""
    learned_from = [about["data"], *(source["data"] for source in _origin(about)["sources"])]
    return {*learned_from} == {RENDERED} and about["pretrained"] is None and _origin(about)["pretrained"] is None


def _origin(about: dict[str, Any]) -> dict[str, Any]:
    """What is known of the network that it started from."""
    return about.get("init_from") or {"pretrained": None, "sources": []}


def _metadata(stored: Stored, results: list[ProtocolResult]) -> str:
    about = stored.about
    licence = (
        {"license": "apache-2.0"} if is_free(about) else {"license": "other", "license_name": "see-licences-below"}
    )
    index = [
        {
            "task": {"type": "image-feature-extraction", "name": "person re-identification"},
            "dataset": {"type": about["dataset"], "name": f"{result.dataset}, {result.setting}"},
            "metrics": [
                {"type": metric, "name": f"{METRIC_NAMES[metric]} (%)", "value": round(100 * result.mean[metric], 2)}
                for metric in ("rank1", "mAP", "mINP")
            ],
        }
        for result in results
    ]
    facts: dict[str, Any] = {
        **licence,
        "library_name": "icre_jax",
        "pipeline_tag": "image-feature-extraction",
        "tags": _TAGS,
    }
    if index:
        facts["model-index"] = [{"name": about["config"], "results": index}]
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in facts.items()), "---"])


def _introduction(stored: Stored) -> str:
    model, (height, width) = stored.settings.model, stored.settings.data.image_size
    size = stored.variables["params"]["head"]["neck"]["scale"].shape[-1]
    parts = [name for name, there in (("MPFR", model.mpfr.enabled), ("SDCE", model.sdce.enabled)) if there]
    return (
        f"A dual-stream ResNet-{model.depth} (stem of {model.width} channels"
        f"{''.join(f', {part}' for part in parts)}), {num_parameters(stored.variables['params']):,} parameters, that "
        f"maps an image of a\nperson from a visible or an infrared camera ({height} x {width} pixels, height first) to "
        f"{size} numbers. Images of one person,\nfrom either camera, are meant to have a high cosine similarity. "
        "Trained and written by `icre_jax`, an implementation of\nICRE in JAX and Flax."
    )


def _usage(stored: Stored) -> str:
    del stored
    return (
        "```python\n"
        "import icre_jax\n\n"
        'net = icre_jax.load("THIS_FOLDER")\n'
        'queries = net.embed(["infrared.png"], modality="infrared")\n'
        'gallery = net.embed(["one.jpg", "two.jpg"], modality="visible")\n'
        "similarity = queries @ gallery.T  # cosine\n"
        "```\n\n"
        "Images are cropped to one person, upright, RGB; of infrared ones the three channels are the same."
    )


def _facts(stored: Stored) -> str:
    about = stored.about
    rows = {
        "config": f"`{about['config']}`, in `config.json` with every setting",
        "step": f"{stored.step}{_chosen(about)}",
        "data": f"{about['data']}{_trial(about)}, {about['num_training_identities']:,} training identities",
        "fingerprint of the data": f"`{about['data_fingerprint']}`",
        "started from": _start(about),
        "written by": f"icre_jax {about['icre_jax']}",
    }
    for form, digest in about["network_sha256"].items():
        rows[f"sha256, {form}"] = f"`{digest}`"
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _start(about: dict[str, Any]) -> str:
    if about.get("init_from"):
        origin = about["init_from"]
        before = f", whose backbone started from `{origin['pretrained']}`" if origin["pretrained"] else ""
        return f"step {origin['step']} of `{origin['path']}`, a network that learned from {origin['data']}{before}"
    return f"`{about['pretrained']}`, the backbone" if about["pretrained"] else "random numbers"


def _chosen(about: dict[str, Any]) -> str:
    scored = about.get("scored", {})
    if scored.get("checkpoint") == "best":
        return f", the best of the run, chosen by {scored.get('selected_by')}"
    return ""


def _trial(about: dict[str, Any]) -> str:
    return "" if about["trial"] is None else f", trial {about['trial']}"


def _scores(about: dict[str, Any], results: list[ProtocolResult]) -> str:
    if not results:
        return "This step was not scored where it was exported."
    lines = [
        "| setting | " + " | ".join(METRIC_NAMES.values()) + " | chance |",
        "|---|" + "---|" * (len(METRIC_NAMES) + 1),
    ]
    for result in results:
        cells = [
            f"{100 * result.mean[name]:.2f}" + (f" ±{100 * result.std[name]:.2f}" if result.num_trials > 1 else "")
            for name in METRIC_NAMES
        ]
        lines.append(f"| {result.setting} | " + " | ".join(cells) + f" | {100 * result.chance:.2f} |")
    conditions = {result.setting: ", ".join(condition_parts(result)) for result in results}
    said = sorted(set(conditions.values()))
    words = [*said] if len(said) == 1 else [f"{setting}: {text}" for setting, text in conditions.items()]
    spread = "; ± is the standard deviation over the gallery draws of this one network, not over training runs"
    note = (
        f"In percent{spread if any(result.num_trials > 1 for result in results) else ''}.\nChance is the Rank-1 of a "
    )
    note += "random order.\n\n" + "\n".join(f"- {line}" for line in words)
    if about["data"] == RENDERED:
        note += "\n\nThese are scores on rendered people. They say nothing about images of real people."
    return "\n".join(lines) + "\n\n" + note


def _data(about: dict[str, Any]) -> str:
    if about["data"] == RENDERED:
        return (
            "Rendered people (`icre_jax.rendering`): computed from random numbers, nobody is shown. The network has\n"
            "never seen an image of a real person and is for trying things out; do not use it on images of real people."
        )
    return f"{about['data']}. {CARDS[about['dataset']].terms}"


def _licences(about: dict[str, Any]) -> str:
    lines = ["- The code that made it and reads it, `icre_jax`: Apache-2.0."]
    if is_free(about):
        return "\n".join([*lines, "- These files: Apache-2.0."])
    lines.append("- These files: whoever exported them says so; nothing is granted by this card alone.")
    if about["data"] != RENDERED:
        lines.append("- The training data: under its own terms, see above; they reach what was trained on it.")
    for source in _origin(about)["sources"]:
        if source["data"] not in (RENDERED, about["data"]):
            lines.append(f"- {source['data']}, which the network it started from learned from: under its own terms.")
    if pretrained := about["pretrained"] or _origin(about)["pretrained"]:
        lines.append(f"- The weights `{pretrained}` that the backbone started from: under their own licence.")
    return "\n".join(lines)


def _checks(about: dict[str, Any]) -> str:
    forms = list(about["network_sha256"])
    lines = [
        f"After writing, each form was read back and embedded {about['compared_on']} of both modalities as the\n"
        "network does that it was written from:\n"
    ]
    for form in forms:
        near = f"within {about['compared_within']:g} of each number of a vector of length 1"
        how = "to the same bits" if form == "orbax" else near
        lines.append(f"- {_FILES[form]}: {how}")
    if "float16_cosine_distance" in about:
        lines.append(
            f"\nThe kernels in `{TENSORS}` are stored in float16. That moved an embedding by a cosine distance of at\n"
            f"most {about['float16_cosine_distance']:.1e} on these images. The scores are of the network before that."
        )
    lines.append(
        "\nWhat does not have the hash above is refused when it is read: that finds damage and mix-ups. It is no "
        "signature."
    )
    return "\n".join(lines)
