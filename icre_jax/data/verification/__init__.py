"""Is a data set on disk what it should be? Every finding is listed, none stops the search.

report = verify("sysu_mm01", Path("data/sysu_mm01"), trial=None, num_workers=4)
"""

from icre_jax.data.verification.checks import CHECKS, verify
from icre_jax.data.verification.report import Count, Report

__all__ = ["CHECKS", "Count", "Report", "verify"]
