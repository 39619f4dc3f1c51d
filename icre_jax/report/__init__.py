"""The report a training run leaves: one HTML file with scores, curves, rank lists and provenance."""

from icre_jax.report.records import Evaluation, ExplainedPair, RankedImage, RankedQuery
from icre_jax.report.write import write_report

__all__ = ["Evaluation", "ExplainedPair", "RankedImage", "RankedQuery", "write_report"]
