"""What scores have to share before they may stand in one table or be compared."""

from collections.abc import Sequence
from typing import Any

from icre_jax.errors import InputError
from icre_jax.experiments.runs import RunScore, conditions_of


def require_one_condition(scores: Sequence[RunScore], *, same_length: bool) -> None:
    """Refuse runs that were scored in different ways or on different data.

    Args:
      scores: of one table.
      same_length: whether all have to be trained for as many steps.

    Raises:
      InputError: two of them differ; says which and in what.
    """
    for score in scores[1:]:
        ours, theirs = _all_conditions(score, same_length), _all_conditions(scores[0], same_length)
        changed = [f"{name} {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]
        if changed:
            raise InputError(
                f"Row {score.row}, seed {score.seed} was scored on {'; '.join(changed)} as row {scores[0].row}, seed "
                f"{scores[0].seed}. Score both alike: python -m icre_jax.evaluate --workdir, or train in another --out."
            )


def _all_conditions(score: RunScore, same_length: bool) -> dict[str, Any]:
    length = {"num_steps": score.num_steps} if same_length else {}
    return conditions_of(score.result) | {"data_fingerprint": score.data_fingerprint} | length
