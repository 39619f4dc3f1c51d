"""The report a training run leaves: one HTML file with scores, curves, rank lists and provenance."""

from icre_jax.report.records import Evaluation, RankedImage, RankedQuery
from icre_jax.report.write import write_report

__all__ = ["Evaluation", "RankedImage", "RankedQuery", "write_report"]
