"""The colours of all figures: told apart by every kind of colour vision, and dark enough for white paper."""

INK, GRID, MUTED = "#3b4252", "#d5d9e0", "#7a8394"
COLORS = ("#0b68cb", "#c2570c", "#0e8a5f", "#8a4fc7", "#b8860b", "#c2407e")
# For up to ten kinds in one plot: M. A. Petroff, "Accessible Color Sequences for Data Visualization", 2021
# (arXiv:2107.02270).
TEN = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
