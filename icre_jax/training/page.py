"""The report of a finished run: what is shown of it, from its log and from test images that are embedded already.

Process 0 alone comes here: nothing may wait for the others.
"""

from typing import Any

import jax
import numpy as np

from icre_jax.data.folders import name_of
from icre_jax.data.images import decode
from icre_jax.data.pipeline import RecordSource
from icre_jax.data.ready import count_data
from icre_jax.datasets import MANIFEST, OTHER, Modality
from icre_jax.engine import provenance
from icre_jax.engine.open_set import describe_open_set
from icre_jax.engine.saliency import explain_pairs
from icre_jax.engine.state import TrainState
from icre_jax.errors import InputError
from icre_jax.evals.chosen import choose_identities, choose_rows, spread
from icre_jax.evals.hardest import hardest_queries
from icre_jax.evals.protocol import query_rows, rank_lists
from icre_jax.evals.ranking import Embedded
from icre_jax.report import Evaluation, ExplainedPair, RankedImage, RankedQuery, write_report
from icre_jax.training.run import Run
from icre_jax.training.session import Session

NUM_RANK_LISTS = 8
RANK_LIST_LENGTH = 10
NUM_HARDEST = 5
NUM_EXPLAINED = 4
_IMAGE_SIZE = (144, 72)

_Sides = dict[Modality, Embedded]


def write_page(
    session: Session, state: TrainState, sides: _Sides, evaluations: list[Evaluation], facts: dict[str, Any]
) -> None:
    """Write report.html.

    Args:
      session: of the run.
      state: the last one.
      sides: all test images, embedded by the network of `state`.
      evaluations: the scores, of its states in the order to show.
      facts: provenance of the last scores.
    """
    run, log = session.run, session.log
    speed = log.read_speed()
    write_report(
        run.workdir / "report.html",
        settings=run.settings,
        steps=log.read_steps(),
        timings=speed,
        evaluations=evaluations,
        score_curve=log.read_score_curve(),
        learning_rates={name: np.asarray(rate) for name, rate in run.rates(np.arange(run.num_steps)).items()},
        steps_per_epoch=run.steps_per_epoch,
        provenance=facts
        | {
            "wall_clock_seconds": sum(line["seconds"] for line in speed),
            "data": {f"{row['split']}, {row['modality']}": row for row in count_data(run.prepared)},
        },
        sides=sides,
        explained=_explained(run, state, sides),
        rank_lists=_rank_lists(run, sides),
        hardest=_hardest(run, sides),
        open_set=_open_set(run, sides),
    )


def _rank_lists(run: Run, sides: _Sides) -> list[RankedQuery]:
    """Rank lists of queries spread evenly over the query set, on the gallery of trial 0 of the headline setting."""
    evaluator = run.evaluators[0]
    setting = evaluator.protocol.settings[0]
    query, gallery = evaluator.sources[setting.query], evaluator.sources[OTHER[setting.query]]
    indices = spread(query_rows(setting, sides[setting.query]), NUM_RANK_LISTS).tolist()
    lists = []
    for index, ranked in zip(indices, rank_lists(setting, sides, indices, top=RANK_LIST_LENGTH), strict=True):
        rows = zip(ranked.gallery_index.tolist(), ranked.similarity.tolist(), ranked.correct.tolist(), strict=True)
        found = [_image(run, gallery, row, similarity, correct) for row, similarity, correct in rows]
        lists.append(RankedQuery(_image(run, query, index), found))
    return lists


def _hardest(run: Run, sides: _Sides) -> list[RankedQuery]:
    """The queries with the most similar wrong image, and their best right one; in the order of their similarity."""
    evaluator = run.evaluators[0]
    setting = next((setting for setting in evaluator.protocol.settings if not setting.transposed), None)
    if setting is None:
        return []
    query, gallery = evaluator.sources[setting.query], evaluator.sources[OTHER[setting.query]]
    lists = []
    for item in hardest_queries(setting, sides, top=NUM_HARDEST):
        pair = [
            _image(run, gallery, item.wrong, item.wrong_similarity, False),
            _image(run, gallery, item.right, item.right_similarity, True),
        ]
        lists.append(RankedQuery(_image(run, query, item.query), pair if item.margin > 0 else pair[::-1]))
    return lists


def _explained(run: Run, state: TrainState, sides: _Sides) -> list[ExplainedPair] | str:
    """Grad-CAM of a few pairs of one identity; in words why not."""
    try:
        pids = choose_identities(sides, NUM_EXPLAINED)
    except InputError as error:
        return str(error)
    order: tuple[Modality, Modality] = ("infrared", "visible")
    size = run.settings.data.image_size
    sources = [run.evaluators[0].sources[modality] for modality in order]
    rows = [choose_rows(sides[modality], pids, 1).tolist() for modality in order]
    images = [
        np.stack([decode(source.image_bytes(row), size) for row in chosen])
        for source, chosen in zip(sources, rows, strict=True)
    ]
    # Every device of every process holds all of it. What this process has on its first device needs nobody else.
    variables = jax.tree.map(lambda x: x.addressable_data(0), state.variables)
    found = explain_pairs(variables, *images, network=run.program.network, modalities=order)
    return [
        ExplainedPair(
            seen.similarity,
            _image(run, sources[0], rows[0][i]),
            _image(run, sources[1], rows[1][i]),
            seen.heat,
        )
        for i, seen in enumerate(found)
    ]


def _open_set(run: Run, sides: _Sides) -> dict[str, Any] | str:
    """As `evaluate --open_set` measures it; in words why not."""
    try:
        return describe_open_set(run.evaluators[0].protocol, sides, dataset=provenance.dataset_label(run.prepared))
    except InputError as error:
        return str(error)


def _image(
    run: Run, source: RecordSource, record: int, similarity: float | None = None, correct: bool | None = None
) -> RankedImage:
    image = decode(source.image_bytes(record), _IMAGE_SIZE)
    pid, camid = int(source.index.pid[record]), int(source.index.camid[record])
    if run.prepared.dataset != MANIFEST.name:
        return RankedImage(image, pid, camid, similarity, correct)
    path = str(source.index.path[record])
    return RankedImage(image, pid, camid, similarity, correct, name=path, person=name_of(path, pid))
