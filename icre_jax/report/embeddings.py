"""Plots of how a network places the test images, by the functions that draw `icre_jax.visualize`'s figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from icre_jax.errors import InputError
from icre_jax.evals.chosen import choose_identities, choose_images
from icre_jax.evals.distances import cross_modal_distances
from icre_jax.evals.ranking import Embedded
from icre_jax.figures.colors import COLORS
from icre_jax.report.figure import Kind, Line, draw, draw_figure
from icre_jax.report.numbers import percent, significant
from icre_jax.report.plots import Plot
from icre_jax.report.scores import Table


def plot_distances(sides: Mapping[Any, Embedded] | None) -> list[Plot] | str:
    """Histograms of the distances between the modalities; in words why not."""
    # Here, not above: loading matplotlib takes half a second, and every start of a training run would wait for it.
    from icre_jax.figures.histograms import Histogram, draw_histograms

    if sides is None:
        return []
    try:
        pairs = cross_modal_distances(sides["visible"], sides["infrared"])
    except InputError as error:
        return str(error)
    panel = [
        Histogram("one identity", pairs.edges, pairs.intra, pairs.intra_mean),
        Histogram("two identities", pairs.edges, pairs.inter, pairs.inter_mean),
    ]
    apart = f"means {pairs.inter_mean - pairs.intra_mean:.2g} apart"
    svg = draw_figure(
        lambda: draw_histograms({apart: panel}, "", x_label="cosine distance", y_label="share of the pairs (%)"),
        name="distances",
        description="Histograms of the cosine distances between visible and infrared test images: pairs of one "
        f"identity, mean {pairs.intra_mean:.3f}, and of two identities, mean {pairs.inter_mean:.3f}.",
    )
    return [Plot("Distances", svg)]


def plot_features(sides: Mapping[Any, Embedded] | None) -> list[Plot] | str:
    """A few test identities in two dimensions; in words why not."""
    from icre_jax.figures.features import MOST_IDENTITIES, draw_features
    from icre_jax.figures.layout import has_scikit_learn, lay_out

    if sides is None:
        return []
    if not has_scikit_learn():
        return "This plot needs scikit-learn, which is not installed: pip install 'icre_jax[figures]'."
    try:
        pids = choose_identities(sides, MOST_IDENTITIES)
    except InputError as error:
        return str(error)
    chosen = choose_images(sides, pids)
    layout = lay_out(
        {modality: side.features for modality, side in chosen.items()},
        {modality: side.pid for modality, side in chosen.items()},
    )
    svg = draw_figure(
        lambda: draw_features({"last": layout}, ""),
        name="features",
        description=f"Test images of {len(pids)} identities by t-SNE: of {len(layout.pid)} images the nearest one of "
        f"the other modality is of another identity for {layout.confused.sum()}.",
    )
    return [Plot("Features", svg)]


def plot_open_set(open_set: Mapping[str, Any]) -> list[Plot]:
    """FNIR against FPIR, a line for each direction; the points of open_set.json."""
    lines = []
    for i, found in enumerate(open_set["directions"]):
        x = np.array([100 * point["fpir"]["value"] for point in found["curve"]])
        drawn: tuple[tuple[str, Kind, str], ...] = (("fnir", "line", "any rank"), ("fnir_first", "dashed", "rank 1"))
        for rates, kind, words in drawn:
            y = np.array([100 * point[rates]["value"] for point in found["curve"]])
            label = f"{found['direction'].replace('->', ' → ')}, {words}"
            # A rate of 0 has no place on a logarithmic axis; it is in the table.
            lines.append(Line(label, np.where(x > 0, x, np.nan), y, COLORS[i % len(COLORS)], kind))
    svg = draw(
        lines,
        name="open-set",
        description="FNIR in percent by FPIR in percent. The numbers are in the table below.",
        x_label="FPIR (%): strangers taken for somebody",
        y_label="FNIR (%): enrolled persons missed",
        log_x=True,
        from_zero=True,
        highest=102,
    )
    return [Plot("DET", svg)] if svg is not None else []


def open_set_table(open_set: Mapping[str, Any]) -> Table:
    """The points in percent, with their intervals."""
    rows = []
    for found in open_set["directions"]:
        for point in found["curve"]:
            cells = [_interval(point["fpir"]), f"{point['threshold']:.4f}"]
            cells += [_interval(point["fnir"]), _interval(point["fnir_first"])]
            name = f"FPIR at most {significant(100 * point['target'])} %"
            rows.append((f"{found['direction'].replace('->', ' → ')}, {name}", cells))
    return Table(["FPIR", "threshold", "FNIR", "FNIR at rank 1"], rows)


def describe_open_set(open_set: Mapping[str, Any]) -> list[str]:
    """On whom each direction was measured."""
    return [
        f"{found['direction'].replace('->', ' → ')}, {found['left_out']}: {found['draws']} draws of "
        f"{found['enrolled_persons']:,} enrolled persons ({found['gallery_images']:,.0f} images), "
        f"{found['searched_enrolled_persons']:,} of whom stand behind FNIR, and {found['strangers']:,} strangers."
        for found in open_set["directions"]
    ]


def _interval(rate: Mapping[str, float]) -> str:
    return f"{percent(rate['value'])} ({percent(rate['low'])} to {percent(rate['high'])})"
