"""Numbers as people read them. What is not finite is said so, never hidden."""

import math

_TIMES = "\N{MULTIPLICATION SIGN}"


def percent(value: float) -> str:
    """A fraction in percent with two digits, e.g. "41.23"."""
    return f"{100 * value:.2f}" if math.isfinite(value) else significant(value)


def factor(value: float, base: float) -> str | None:
    """How many times `base` the value is, such as 4.2 or 31 with a times sign; None if that means nothing."""
    if not (math.isfinite(value) and math.isfinite(base)) or base <= 0:
        return None
    ratio = value / base
    return f"{ratio:.1f}{_TIMES}" if ratio < 9.95 else f"{ratio:,.0f}{_TIMES}"


def significant(value: float) -> str:
    """Four significant digits; whole numbers in full with thousands separated."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as "42.5 s", "4 min 12 s", "3 h 5 min" or "2 d 4 h"."""
    if not math.isfinite(seconds) or seconds < 0:
        return f"{significant(seconds)} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, below, smaller, length in (("min", 3600, "s", 60), ("h", 86400, "min", 3600)):
        if whole < below:
            return f"{whole // length} {unit} {whole % length * 60 // length} {smaller}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def memory(num_bytes: float) -> str:
    """Bytes as "512 B", "3.4 MB", "1.2 GB" (powers of 1000)."""
    if not math.isfinite(num_bytes):
        return f"{significant(num_bytes)} B"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 999.5:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
