"""Figures of embeddings and scores: distances, features, enhancement, CMC, the hardest errors."""

import numpy as np

from icre_jax.datasets import MODALITIES, OTHER, Modality
from icre_jax.errors import InputError
from icre_jax.evals.chosen import choose_identities, choose_images
from icre_jax.evals.distances import cross_modal_distances
from icre_jax.evals.hardest import Hard, hardest_queries
from icre_jax.figures.cmc import draw_cmc
from icre_jax.figures.colors import COLORS
from icre_jax.figures.features import MOST_IDENTITIES, draw_features
from icre_jax.figures.histograms import Histogram, draw_histograms
from icre_jax.figures.layout import lay_out
from icre_jax.figures.maps import Cell, draw_cells
from icre_jax.inspection.drawn import Drawn
from icre_jax.inspection.subjects import Subject, Subjects

NUM_ERRORS = 5
_NUM_BINS = 40
_SHOWN_AT = (192, 96)  # height, width of an image in the figure of errors
# Without the enhancement nothing is added; without its gate's scale the same offset to all images.
_TAKEN_OUT = {"enhancement": "the whole enhancement", "gate": "what of it differs between images"}
_RIGHT, _WRONG = COLORS[0], COLORS[1]


def distances(subjects: Subjects) -> Drawn:
    """Histograms of the distances between the modalities."""
    panels = {}
    rows: list[tuple[object, ...]] = []
    for label, subject in subjects.states.items():
        pairs = cross_modal_distances(subject.sides["visible"], subject.sides["infrared"])
        panels[f"{label}\nmeans {pairs.inter_mean - pairs.intra_mean:.2g} apart"] = [
            Histogram("one identity", pairs.edges, pairs.intra, pairs.intra_mean),
            Histogram("two identities", pairs.edges, pairs.inter, pairs.inter_mean),
        ]
        for kind, counts, mean in (("intra", pairs.intra, pairs.intra_mean), ("inter", pairs.inter, pairs.inter_mean)):
            rows.append((label, kind, "mean", "", "", mean))
            for low, high, count in zip(pairs.edges[:-1], pairs.edges[1:], counts.tolist(), strict=True):
                rows.append((label, kind, "pairs", low, high, count))
    title = f"Distances between visible and infrared images ({subjects.data})"
    figure = draw_histograms(panels, title, x_label="cosine distance", y_label="share of the pairs (%)")
    return Drawn(figure, ("network", "identities", "what", "from", "to", "value"), rows)


def features(subjects: Subjects) -> Drawn:
    """Features in two dimensions."""
    pids = choose_identities(subjects.network.sides, MOST_IDENTITIES)
    layouts, rows = {}, []
    for label, subject in subjects.states.items():
        chosen = choose_images(subject.sides, pids)
        layout = lay_out(
            {modality: side.features for modality, side in chosen.items()},
            {modality: side.pid for modality, side in chosen.items()},
        )
        layouts[label] = layout
        for path, pid, modality, (x, y), confused in zip(
            np.concatenate([side.path for side in chosen.values()]).tolist(),
            layout.pid.tolist(),
            layout.modality.tolist(),
            layout.points,
            layout.confused.tolist(),
            strict=True,
        ):
            rows.append((label, path, pid, modality, x, y, int(confused)))
    title = f"{len(pids)} test identities by t-SNE ({subjects.data})"
    columns = ("network", "path", "pid", "modality", "x", "y", "confused")
    return Drawn(draw_features(layouts, title), columns, rows)


def enhancement(subjects: Subjects) -> Drawn:
    """How far the enhancement moves the features, and how far what it makes of the image itself does."""
    network = subjects.network
    full = network.features()
    panels: dict[str, list[Histogram]] = {}
    rows = []
    for part, words in _TAKEN_OUT.items():
        if part not in network.trained.parts:
            continue
        reduced = network.features(without=part)
        moved = {modality: _moved(full[modality], reduced[modality]) for modality in MODALITIES}
        edges = np.linspace(0, 1.05 * max(float(values.max()) for values in moved.values()) or 1.0, _NUM_BINS + 1)
        panels[words] = [
            Histogram(modality, edges, np.histogram(values, edges)[0], float(np.median(values)), "median")
            for modality, values in moved.items()
        ]
        for modality in MODALITIES:
            cosine = _cosines(full[modality], reduced[modality])
            paths = network.sides[modality].path.tolist()
            for path, move, similar in zip(paths, moved[modality], cosine, strict=True):
                rows.append((part, modality, path, move, similar))
    title = f"How far its enhancement moves the features f of {network.label} ({subjects.data})"
    x_label = "|f with \N{MINUS SIGN} f without| / |f without|"
    figure = draw_histograms(panels, title, x_label=x_label, y_label="share of the images (%)")
    return Drawn(figure, ("taken_out", "modality", "path", "relative_move", "cosine"), rows)


def _moved(full: np.ndarray, reduced: np.ndarray) -> np.ndarray:
    return np.linalg.norm(full - reduced, axis=1) / np.maximum(np.linalg.norm(reduced, axis=1), 1e-12)


def _cosines(full: np.ndarray, reduced: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(full, axis=1) * np.linalg.norm(reduced, axis=1)
    return np.sum(full * reduced, axis=1) / np.maximum(lengths, 1e-12)


def cmc(subjects: Subjects) -> Drawn:
    """CMC of all networks that were trained."""
    shown = [subjects.network, *([subjects.baseline] if subjects.baseline else []), *subjects.others]
    found = {subject.label: subject.results for subject in shown}
    rows: list[tuple[object, ...]] = []
    for label, results in found.items():
        for result in results:
            rows.append((label, result.setting, "chance", 1, result.chance))
            rows += [(label, result.setting, "cmc", rank, share) for rank, share in enumerate(result.cmc, start=1)]
    curves = {label: {result.setting: result.cmc for result in results} for label, results in found.items()}
    chance = {result.setting: result.chance for result in subjects.network.results}
    protocol = subjects.network.results[0].protocol
    title = f"CMC by the protocol of {protocol} ({subjects.data})"
    return Drawn(draw_cmc(curves, chance, title), ("network", "setting", "what", "rank", "share"), rows)


def errors(subjects: Subjects) -> Drawn:
    """The queries whose best wrong image is most similar, beside the best right one."""
    network = subjects.network
    setting = next(setting for setting in network.evaluator.protocol.settings if not setting.transposed)
    hard = hardest_queries(setting, network.sides, top=NUM_ERRORS)
    if not hard:
        raise InputError(f"No query of {setting.name} has both a right and a wrong image to be compared with.")
    query, gallery = network.sides[setting.query], network.sides[OTHER[setting.query]]
    rows = [
        (
            rank,
            query.path[item.query],
            int(query.pid[item.query]),
            gallery.path[item.wrong],
            int(gallery.pid[item.wrong]),
            item.wrong_similarity,
            gallery.path[item.right],
            item.right_similarity,
            item.margin,
        )
        for rank, item in enumerate(hard, start=1)
    ]
    missed = sum(item.margin > 0 for item in hard)
    title = f"The hardest queries of {network.label}\n({setting.name}, {subjects.data})"
    note = "" if missed == len(hard) else f"Of these, {missed} are errors; in the others the right image comes first."
    figure = draw_cells([_cells(network, setting.query, item) for item in hard], title, note=note)
    columns = ("rank", "query", "pid", "wrong", "wrong_pid", "wrong_similarity", "right", "right_similarity", "margin")
    return Drawn(figure, columns, rows)


def _cells(network: Subject, asking: Modality, item: Hard) -> list[Cell]:
    query, gallery = network.sides[asking], network.sides[OTHER[asking]]
    (shown,) = network.images(asking, [item.query], _SHOWN_AT)
    wrong, right = network.images(OTHER[asking], [item.wrong, item.right], _SHOWN_AT)
    return [
        Cell(shown, title=f"query: {query.pid[item.query]}", note=_name(query.path[item.query])),
        Cell(
            wrong,
            title=f"wrong: {gallery.pid[item.wrong]}, {item.wrong_similarity:.3f}",
            note=_name(gallery.path[item.wrong]),
            frame=_WRONG,
        ),
        Cell(
            right,
            title=f"right: {gallery.pid[item.right]}, {item.right_similarity:.3f}",
            note=_name(gallery.path[item.right]),
            frame=_RIGHT,
        ),
    ]


def _name(path: str) -> str:
    """As much of a path as fits below an image."""
    return path if len(path) <= 18 else f"...{path[-15:]}"
