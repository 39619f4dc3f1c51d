"""A figure with its numbers, and how the two become files."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from icre_jax.figures.style import styled, to_pdf, to_png


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure.

    Attributes:
      figure: that was made inside `icre_jax.figures.style.styled`.
      columns: of the table of its numbers.
      rows: that table; floats are written with six significant digits.
    """

    figure: Figure
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]

    def write(self, folder: Path, name: str) -> None:
        """NAME.png, NAME.pdf and NAME.csv."""
        with styled():
            (folder / f"{name}.png").write_bytes(to_png(self.figure))
            (folder / f"{name}.pdf").write_bytes(to_pdf(self.figure))
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            assert len(row) == len(self.columns)
            writer.writerow([f"{value:.6g}" if isinstance(value, float | np.floating) else value for value in row])
        (folder / f"{name}.csv").write_text(stream.getvalue(), encoding="utf-8")
