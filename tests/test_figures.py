"""Figures from arrays made by hand: what is drawn is what was given; and the numbers beside them, by brute force."""

import io
import itertools

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from icre_jax.datasets import MODALITIES
from icre_jax.errors import InputError
from icre_jax.evals.chosen import choose_identities, choose_images, choose_rows, spread
from icre_jax.evals.distances import cross_modal_distances
from icre_jax.evals.hardest import Hard, hardest_queries
from icre_jax.evals.protocol import Setting
from icre_jax.evals.ranking import Embedded, exclude_nothing, exclude_same_id_and_camera
from icre_jax.figures.cmc import draw_cmc
from icre_jax.figures.colors import COLORS, TEN
from icre_jax.figures.features import Layout, draw_features
from icre_jax.figures.histograms import Histogram, draw_histograms
from icre_jax.figures.layout import lay_out
from icre_jax.figures.maps import Cell, draw_cells
from icre_jax.figures.style import styled, to_pdf, to_png
from icre_jax.inspection.drawn import Drawn


@pytest.fixture(autouse=True)
def style():
    with styled():
        yield


def side(features, pid, camid=1) -> Embedded:
    pid = np.array(pid, np.int64)
    paths = np.array([f"{i}.png" for i in range(len(pid))])
    cameras = np.broadcast_to(np.array(camid, np.int64), pid.shape).copy()
    return Embedded(np.array(features, np.float32), pid, cameras, paths)


def random_sides(rng, num_ids=5, per_id=4, size=6):
    """Identities that a network tells apart more or less."""
    centers = rng.normal(size=(num_ids, size))
    pid = np.repeat(np.arange(1, num_ids + 1), per_id)
    return {m: side(centers[pid - 1] + 0.8 * rng.normal(size=(len(pid), size)), pid) for m in MODALITIES}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def assert_readable(figure: Figure) -> None:
    """It becomes files, opaque, the same bytes each time, and no letter is smaller than 7 points."""
    png = to_png(figure)
    assert png == to_png(figure)
    assert to_pdf(figure) == to_pdf(figure)
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels[..., 3].min() == 255
    np.testing.assert_array_equal(pixels[0, 0], 255)
    assert min(text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()) >= 7


def test_distances_are_those_of_all_pairs():
    sides = random_sides(np.random.default_rng(0))
    found = cross_modal_distances(sides["visible"], sides["infrared"])
    expected = {True: [], False: []}
    for i, j in itertools.product(range(20), range(20)):
        a, b = (sides[m].features[k].astype(np.float64) for m, k in zip(MODALITIES, (i, j), strict=True))
        cosine = a @ b / np.sqrt((a @ a) * (b @ b))
        expected[bool(sides["visible"].pid[i] == sides["infrared"].pid[j])].append(1 - cosine)
    assert (found.intra.sum(), found.inter.sum()) == (80, 320)
    assert found.intra_mean == pytest.approx(np.mean(expected[True]), abs=1e-6)
    assert found.inter_mean == pytest.approx(np.mean(expected[False]), abs=1e-6)
    # Moved by what float32 rounds, a pair may fall into the next bin.
    inside = np.cumsum(np.histogram(expected[True], found.edges)[0])
    assert np.abs(inside - np.cumsum(found.intra)).max() <= 2
    everything = expected[True] + expected[False]
    np.testing.assert_allclose(found.edges[[0, -1]], [min(everything), max(everything)], atol=1e-6)


def test_distances_of_equal_vectors_have_a_place():
    same = side([[1.0, 0.0]] * 2, [1, 2])
    found = cross_modal_distances(same, same)
    assert (found.intra.sum(), found.inter.sum()) == (2, 2)


@pytest.mark.parametrize("pids", [([1, 1], [1, 1]), ([1, 2], [3, 4])])
def test_distances_need_both_kinds_of_pairs(pids):
    visible, infrared = (side(np.eye(2), pid) for pid in pids)
    with pytest.raises(InputError, match=r"show one identity and \d two; both kinds are needed"):
        cross_modal_distances(visible, infrared)


def test_the_histograms_hold_the_shares_and_mark_the_values():
    edges = np.array([0.0, 0.5, 1.0])
    panels = {
        name: [
            Histogram("one", edges, np.array(first), 0.4),
            Histogram("two", edges, np.array([1, 9]), 0.8, "median"),
        ]
        for name, first in (("untrained", [1, 1]), ("ours\n0.4 apart", [3, 1]))
    }
    figure = draw_histograms(panels, "title", x_label="distance", y_label="share (%)")
    ours = figure.axes[1]
    assert ours.get_title() == "ours\n0.4 apart"
    heights = [patch.get_data().values.tolist() for patch in ours.patches]
    assert heights[0] == heights[1] == [75, 25]
    assert heights[2] == heights[3] == [10, 90]
    assert [line.get_xdata()[0] for line in ours.lines] == [0.4, 0.8]
    assert [line.get_linestyle() for line in ours.lines] == ["-", "--"]
    assert legend(figure) == ["one", "mean, one", "two", "median, two"]
    assert_readable(figure)


def test_features_have_colours_shapes_and_outlines():
    layout = Layout(
        points=np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [3.0, 1.0]]),
        pid=np.array([7, 7, 9, 9]),
        modality=np.array(["visible", "infrared"] * 2),
        confused=np.array([False, False, True, False]),
    )
    figure = draw_features({"ours": layout}, "title")
    panel = figure.axes[0]
    drawn = {
        tuple(offset): (matplotlib.colors.to_hex(points.get_facecolor()[0]), points)
        for points in panel.collections
        for offset in points.get_offsets().data.tolist()
    }
    assert drawn[0, 0][0] == drawn[1, 1][0] == TEN[0]
    assert drawn[2, 0][0] == drawn[3, 1][0] == TEN[1]
    shapes = {place: points.get_paths()[0].vertices.shape for place, (_, points) in drawn.items()}
    assert shapes[0, 0] == shapes[2, 0] != shapes[1, 1] == shapes[3, 1]
    outlined = {place for place, (_, points) in drawn.items() if points.get_linewidth()[0] > 1}
    assert outlined == {(2, 0)}
    assert panel.get_title() == "ours: 1 of 4 confused"
    assert {"7", "9"} <= {*texts(figure)}
    assert_readable(figure)


def test_a_legend_is_no_wider_than_its_figure():
    layout = Layout(np.eye(2), np.array([7, 7]), np.array(MODALITIES), np.array([False, True]))
    edges, counts = np.array([0.0, 0.5, 1.0]), np.array([1, 1])
    panel = [Histogram(name, edges, counts, 0.4) for name in ("one identity", "two identities")]
    for panels in (1, 2, 3):
        names = [f"network {i}" for i in range(panels)]
        for figure in (
            draw_features(dict.fromkeys(names, layout), ""),
            draw_histograms(dict.fromkeys(names, panel), "", x_label="distance", y_label="share (%)"),
        ):
            to_png(figure)
            box = figure.legends[0].get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width


def test_the_layout_is_seeded_and_knows_who_is_confused():
    rng = np.random.default_rng(1)
    # Two identities far apart, and one infrared image that lies with the others.
    centers = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    pid = np.repeat([3, 8], 6)
    visible, infrared = (centers[[0] * 6 + [1] * 6] + 0.05 * rng.normal(size=(12, 3)) for _ in range(2))
    infrared[0] = centers[1]
    sides = {"visible": side(visible, pid), "infrared": side(infrared, pid)}
    chosen = choose_images(sides, [3, 8])
    arrays = [{m: getattr(side, name) for m, side in chosen.items()} for name in ("features", "pid")]
    layout, again = lay_out(*arrays), lay_out(*arrays)
    paths = np.concatenate([side.path for side in chosen.values()])
    np.testing.assert_array_equal(layout.points, again.points)
    assert (layout.points.shape, len(paths)) == ((24, 2), 24)
    confused = {(layout.modality[i], paths[i]) for i in np.flatnonzero(layout.confused)}
    # The visible ones of identity 8 may have the stray one nearest, or a right one.
    assert ("infrared", "0.png") in confused
    assert {modality for modality, _ in confused - {("infrared", "0.png")}} <= {"visible"}
    groups = [layout.points[(layout.pid == pid) & ~layout.confused] for pid in (3, 8)]
    gap = np.linalg.norm(groups[0].mean(axis=0) - groups[1].mean(axis=0))
    assert gap > 2 * max(np.linalg.norm(group - group.mean(axis=0), axis=1).mean() for group in groups)


def test_identities_and_rows_are_spread_evenly():
    sides = {"visible": side(np.eye(6), [1, 2, 3, 4, 5, 5]), "infrared": side(np.eye(6), [2, 3, 4, 5, 6, 6])}
    assert choose_identities(sides, 3) == [2, 4, 5]
    assert choose_identities(sides, 9) == [2, 3, 4, 5]
    assert choose_rows(sides["visible"], [5, 2], 1).tolist() == [4, 1]
    with pytest.raises(InputError, match="No identity has test images of both modalities"):
        choose_identities({"visible": side(np.eye(2), [1, 1]), "infrared": side(np.eye(2), [2, 2])}, 2)
    for length in range(40):
        rows = 10 * np.arange(length)
        chosen = spread(rows, 8)
        assert len(chosen) == min(length, 8)
        assert (np.diff(chosen) > 0).all()


def test_cells_show_their_images_where_they_belong():
    image = np.full((8, 4, 3), 200, np.uint8)
    heat = np.zeros((2, 1))
    heat[0] = 1
    cells = [[Cell(image, title="one", box=(0.5, 0.0, 0.5, 1.0)), Cell(image, heat, note="below", frame=COLORS[1])]]
    figure = draw_cells(cells * 2, "a title " * 20, scale="heat", note="a note")
    panels = figure.axes[:4]
    np.testing.assert_array_equal(panels[0].images[0].get_array(), image)
    shown = panels[1].images[0].get_array()
    assert shown[:4].mean() > shown[4:].mean() + 50
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 2  # tiles
    assert panels[0].patches[0].get_bbox().bounds == (0, 4, 4, 4)
    assert panels[1].spines["left"].get_edgecolor() == matplotlib.colors.to_rgba(COLORS[1])
    # Nothing overlaps, and nothing is cut off.
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    to_png(figure)
    boxes = [panel.get_tightbbox(renderer) for panel in figure.axes]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
    for one, other in itertools.combinations(boxes, 2):
        assert one.x1 <= other.x0 + 3 or other.x1 <= one.x0 + 3 or one.y1 <= other.y0 + 3 or other.y1 <= one.y0 + 3
    assert_readable(figure)


def test_cmc_has_a_line_for_each_network_and_chance():
    networks = {name: {"all": [start] * 20, "indoor": [start / 2] * 20} for name, start in (("ours", 1), ("base", 0.5))}
    chance = {"all": 0.1, "indoor": 0.2}
    figure = draw_cmc(networks, chance, "title")
    assert [panel.get_title() for panel in figure.axes] == ["all", "indoor"]
    for panel in figure.axes:
        lines = {line.get_label(): line.get_ydata() for line in panel.lines}
        assert [*lines] == ["ours", "base", "chance, Rank-1"]
        for name, curves in networks.items():
            np.testing.assert_allclose(lines[name], 100 * np.array(curves[panel.get_title()]))
        assert lines["chance, Rank-1"] == [100 * chance[panel.get_title()]]
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines[:2]}
    assert len(styles) == len({color for color, *_ in styles}) == len({mark for *_, mark in styles}) == 2
    assert_readable(figure)


@pytest.mark.parametrize("excluded", [exclude_nothing, exclude_same_id_and_camera])
def test_the_hardest_queries_by_brute_force(excluded, monkeypatch):
    monkeypatch.setattr("icre_jax.evals.hardest._BLOCK_ELEMENTS", 50)  # several blocks
    rng = np.random.default_rng(2)
    sides = random_sides(rng)
    for embedded in sides.values():
        embedded.camid[:] = rng.integers(1, 3, len(embedded))
    setting = Setting("all", "infrared", excluded, False, "nobody")
    found = hardest_queries(setting, sides, top=7)
    query, gallery = sides["infrared"], sides["visible"]
    expected = []
    for i in range(len(query)):
        best = {}
        for j in range(len(gallery)):
            right = query.pid[i] == gallery.pid[j]
            if excluded is exclude_same_id_and_camera and right and query.camid[i] == gallery.camid[j]:
                continue
            a, b = query.features[i].astype(np.float64), gallery.features[j].astype(np.float64)
            best[right] = max(best.get(right, (-2, 0)), (a @ b / np.sqrt((a @ a) * (b @ b)), j))
        if len(best) == 2:
            expected.append(Hard(i, best[True][1], best[False][1], best[True][0], best[False][0]))
    expected = sorted(expected, key=lambda hard: -hard.margin)[:7]
    assert [(h.query, h.right, h.wrong) for h in found] == [(h.query, h.right, h.wrong) for h in expected]
    np.testing.assert_allclose([h.margin for h in found], [h.margin for h in expected], atol=1e-6)


def test_numbers_go_to_a_file_with_six_digits(tmp_path):
    drawn = Drawn(Figure(figsize=(1, 1)), ("name", "value"), [("a,b", 1 / 3), ("c", np.float32(2e-9)), ("d", 7)])
    drawn.write(tmp_path, "one")
    assert (tmp_path / "one.csv").read_text() == 'name,value\n"a,b",0.333333\nc,2e-09\nd,7\n'
    assert {file.name for file in tmp_path.iterdir()} == {"one.png", "one.pdf", "one.csv"}
