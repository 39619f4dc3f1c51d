"""Figures of single images: Grad-CAM of pairs, MPFR's masks, SDCE's attention."""

from typing import Any

import numpy as np

from icre_jax.datasets import MODALITIES, Modality
from icre_jax.engine.saliency import explain_pairs, look_step
from icre_jax.errors import InputError
from icre_jax.evals.chosen import choose_identities, choose_rows
from icre_jax.figures.maps import Cell, draw_cells
from icre_jax.inspection.drawn import Drawn
from icre_jax.inspection.subjects import Subject, Subjects

NUM_PAIRS = 4
NUM_MAPPED = 2  # identities whose masks and attention are shown, in both modalities
_ORDER: tuple[Modality, Modality] = ("infrared", "visible")


def grad_cam(subjects: Subjects) -> Drawn:
    """Grad-CAM of pairs of one identity, by the network and the baseline."""
    network = subjects.network
    pids = choose_identities(network.sides, NUM_PAIRS)
    chosen = {modality: choose_rows(network.sides[modality], pids, 1) for modality in _ORDER}
    found = {
        subject.label: explain_pairs(
            subject.trained.variables,
            *(subject.images(modality, chosen[modality].tolist()) for modality in _ORDER),
            network=subject.trained.network,
            modalities=_ORDER,
        )
        for subject in (subjects.baseline, network)
        if subject is not None
    }
    shots = {modality: network.images(modality, chosen[modality].tolist(), _shown_at(network)) for modality in _ORDER}
    cells: list[list[Cell]] = []
    rows: list[tuple[object, ...]] = []
    for i, pid in enumerate(pids):
        cells.append([])
        for side, modality in enumerate(_ORDER):
            shot, path = shots[modality][i], network.sides[modality].path[chosen[modality][i]]
            cells[-1].append(Cell(shot, title=f"{pid}\n{modality}"))
            for label, explained in found.items():
                seen = explained[i]
                value = f"{seen.similarity:.3f}".replace("-", "\N{MINUS SIGN}")
                cells[-1].append(Cell(shot, seen.heat[side], smooth=True, title=f"{_name(label)}\ns = {value}"))
                for place, heat in np.ndenumerate(seen.heat[side]):
                    rows.append((pid, modality, path, label, seen.similarity, *place, heat))
    figure = draw_cells(
        cells,
        f"Grad-CAM: where the similarity s of two images of one identity comes from ({subjects.data})",
        scale="Grad-CAM, each image on its own scale",
        note="Where an image stays dark, nothing in its deep map speaks for the similarity.",
    )
    columns = ("pid", "modality", "path", "network", "similarity", "row", "column", "heat")
    return Drawn(figure, columns, rows)


def masks(subjects: Subjects) -> Drawn:
    """MPFR's mask of each scale over the images."""
    network = subjects.network
    taps = [f"layer{tap}" for tap in network.trained.settings.model.mpfr.taps]
    cells, rows = [], []
    for shot, (modality, path, pid), maps in _looked_at(network):
        line = [Cell(shot, title=f"{pid}\n{modality}")]
        for i, name in enumerate(taps):
            mask = maps["masks"][:, :, i]
            words = f"M{i + 1}, {name}\n{mask.min():.2f} to {mask.max():.2f}"
            line.append(Cell(shot, mask, high=1.0, title=words))
            rows += [(path, pid, modality, name, y, x, value) for (y, x), value in np.ndenumerate(mask)]
        cells.append(line)
    figure = draw_cells(cells, f"MPFR's masks, network {network.label} ({subjects.data})", scale="mask", top=1.0)
    return Drawn(figure, ("path", "pid", "modality", "stage", "row", "column", "mask"), rows)


def attention(subjects: Subjects, token: tuple[int, int] | None) -> Drawn:
    """Whom a token of the deep map asks in SDCE, mean over the heads; the numbers are of each head."""
    network = subjects.network
    cells, rows = [], []
    for shot, (modality, path, pid), maps in _looked_at(network):
        height, width = next(iter(maps["attention"].values())).shape[-2:]
        y0, x0 = _token(token, height, width)
        box = (y0 / height, x0 / width, 1 / height, 1 / width)
        line = [Cell(shot, title=f"{pid}\n{modality}", box=box)]
        for name, found in maps["attention"].items():
            heads = found[:, y0, x0]
            mean = heads.mean(axis=0)
            line.append(Cell(shot, mean, title=f"{name}-attention\nat most {mean.max():.3f}", box=box))
            for (head, y, x), value in np.ndenumerate(heads):
                rows.append((path, pid, modality, name, head, y0, x0, y, x, value))
        cells.append(line)
    equal = 1 / (height * width)
    figure = draw_cells(
        cells,
        f"SDCE's attention of the framed token, network {network.label} ({subjects.data})",
        scale="attention, mean of the heads, each image on its own scale",
        note=f"The same attention to each of the {height * width} tokens would be {equal:.3f}.",
    )
    columns = ("path", "pid", "modality", "step", "head", "token_row", "token_column", "row", "column", "attention")
    return Drawn(figure, columns, rows)


def _looked_at(network: Subject) -> list[tuple[np.ndarray, tuple[Modality, str, int], dict[str, Any]]]:
    """(image to show, (modality, path, pid), maps of that image alone) of a few identities."""
    pids = choose_identities(network.sides, NUM_MAPPED)
    found = []
    for modality in reversed(MODALITIES):
        side = network.sides[modality]
        rows = choose_rows(side, pids, 1)
        images = network.images(modality, rows.tolist())
        seen = look_step(network.trained.variables, images, network=network.trained.network, modality=modality)
        for i, shot in enumerate(network.images(modality, rows.tolist(), _shown_at(network))):
            facts = (modality, str(side.path[rows[i]]), int(side.pid[rows[i]]))
            found.append((shot, facts, _row(seen, i)))
    return sorted(found, key=lambda item: item[1][2])


def _row(tree: Any, i: int) -> Any:
    if isinstance(tree, dict):
        return {name: _row(branch, i) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_row(branch, i) for branch in tree)
    return np.asarray(tree[i])


def _token(token: tuple[int, int] | None, height: int, width: int) -> tuple[int, int]:
    row, column = (height // 3, width // 2) if token is None else token
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"--token is {row},{column}; the deep map of this network has {height} rows (0 to {height - 1}) and "
            f"{width} columns (0 to {width - 1})."
        )
    return row, column


def _name(label: str) -> str:
    """As much of a label as fits above an image."""
    return label if len(label) <= 16 else f"{label[:6]}...{label[-7:]}"


def _shown_at(network: Subject) -> tuple[int, int]:
    """As the network sees images, but at least 192 pixels high."""
    height, width = network.image_size
    factor = max(1, -(-192 // height))
    return height * factor, width * factor
