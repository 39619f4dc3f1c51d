"""The rows of the ablation: what each leaves out of the full method or puts in its place, at one budget for all."""

from collections.abc import Sequence
from typing import Any

from icre_jax.errors import InputError, join_findings
from icre_jax.experiments.runs import Row
from icre_jax.machine import command
from icre_jax.settings import flatten, resolve_paths
from icre_jax.settings.fields import Settings

BASELINE = "baseline"
ICG = "icg"
FULL = "icre"
# Variants of the config file.
_VARIANTS = {
    BASELINE: "Baseline",
    "baseline_triplet": "Baseline + triplet",
    "agw": "AGW",
    "mpfr": "Baseline + MPFR",
    "sdce": "Baseline + SDCE",
    ICG: "Baseline + ICG",
    "mpfr_sdce": "Baseline + MPFR + SDCE",
    # Controls: what of a gain is there without multi-scale masks and attention.
    "offset": "Baseline + learned offset",
    "local": "Baseline + gated local addition",
}
# Full ICRE with one form of the ICG loss and the margins of docs/method.md for it.
_FORMS: dict[str, dict[str, Any]] = {
    "relative": {"loss.icg_form": "relative", "loss.icg_rho1": 0.3, "loss.icg_rho2": 0.3},
    "absolute": {"loss.icg_form": "absolute", "loss.icg_rho1": 0.7},
    "guided": {"loss.icg_form": "guided", "loss.icg_rho1": 0.2, "loss.icg_space": "features"},
}
_FORM_OF_ROW = {f"{FULL}_{form}": form for form in _FORMS}
NAMES = (*_VARIANTS, FULL, *_FORM_OF_ROW)


def plan_rows(names: Sequence[str], config_flags: Sequence[str]) -> list[Row]:
    """The rows of these names, in the order of `NAMES`, each once, at one budget.

    The row of the form of the ICG loss that the config has by itself is `icre`: it is not there twice.

    Args:
      names: any of `NAMES`.
      config_flags: "--config=FILE" and fields for all rows, as `command.read_config` takes them.

    Raises:
      InputError: an unknown name; a config that cannot be used or has no such variant; a field given for all rows that
        one of them is made of; rows that cannot be brought to one budget.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise InputError(f"Unknown row {', '.join(map(repr, unknown))}; allowed are {', '.join(NAMES)}.")
    default = command.read_config(config_flags)
    file, fields = config_flags[0], config_flags[1:]
    if ":" in file:
        raise InputError(
            f"{file} names a variant; the rows of the ablation are the variants. Give the file alone, and fields as "
            "--config.some.field=value."
        )
    form = default.loss.icg_form
    wanted = {FULL if _FORM_OF_ROW.get(name) == form else name for name in names}
    return [_plan(name, file, fields, default) for name in NAMES if name in wanted]


def _plan(name: str, file: str, fields: Sequence[str], default: Settings) -> Row:
    form = _FORM_OF_ROW.get(name, default.loss.icg_form)
    label = _VARIANTS.get(name, f"ICRE (ICG {form})")
    source = f"{file}:{name}" if name in _VARIANTS else file
    own = _FORMS[form] if name in _FORM_OF_ROW else {}
    try:
        _refuse_own(name, [source, *_as_flags(own)], own, file, fields)
        flags = [source, *_as_flags(own), *fields]
        settings = command.read_config(flags)
        reset = _differing(default, settings)
        budget = flatten(default)
        flags += _as_flags({field: budget[field] for field in reset if field in budget})
        settings = command.read_config(flags)
    except InputError as error:
        raise InputError(f"Row {name}: {error}") from error
    left = _differing(default, settings)
    if left:
        findings = [f"{field}: {flatten(settings).get(field)}, not {budget.get(field)}" for field in left]
        raise InputError(
            f"Row {name} has another budget than the config itself, so its scores could not be compared:\n"
            f"{join_findings(findings)}\nLet the variant change nothing but model and loss, or leave it out (--rows)."
        )
    return Row(name, label, tuple(flags), resolve_paths(settings), tuple(reset))


def _refuse_own(name: str, flags: Sequence[str], own: dict[str, Any], file: str, fields: Sequence[str]) -> None:
    """A field that makes this row what it is cannot be given for all rows: the row would no longer be what it says."""
    given = [flag.removeprefix("--config.").split("=")[0] for flag in fields]
    if "seed" in given:
        raise InputError("The seed is set for each run. Give --seeds 0,1,2 in place of --config.seed.")
    plain, made = flatten(command.read_config([file])), flatten(command.read_config(flags))
    taken = [field for field in given if field in own or (_is_method(field) and plain.get(field) != made.get(field))]
    if taken:
        raise InputError(
            f"it sets {', '.join(f'{field} = {made.get(field)}' for field in taken)} itself, which --config.{taken[0]} "
            "would undo. Set it in a config file of your own, before the variant, or leave the row out (--rows)."
        )


def _differing(default: Settings, settings: Settings) -> list[str]:
    """Fields of the budget, that is of everything but the method, in which the two differ."""
    a, b = flatten(default), flatten(settings)
    return [
        field
        for field in sorted(a.keys() | b.keys())
        if a.get(field) != b.get(field) and field != "seed" and not _is_method(field)
    ]


def _is_method(field: str) -> bool:
    return field == "name" or field.startswith(("model.", "loss."))


def _as_flags(fields: dict[str, Any]) -> list[str]:
    return [f"--config.{field}={value}" for field, value in fields.items()]
