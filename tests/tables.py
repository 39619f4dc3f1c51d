"""The table of scores as text, for several test files."""

import io

from rich import box
from rich.console import Console

from icre_jax.evals.tables import table


def format_table(results) -> str:
    """The conditions, a Markdown table, the note on published numbers. No trailing newline."""
    view = table(results)
    title, caption = view.title, view.caption
    view.title = view.caption = None
    view.box, view.padding, view.pad_edge = box.MARKDOWN, (0, 1), True
    stream = io.StringIO()
    # Wide enough never to wrap, which would break the Markdown; rich uses only what it needs.
    Console(file=stream, width=400, color_system=None, force_terminal=False).print(view)
    body = "\n".join(line.rstrip() for line in stream.getvalue().splitlines() if line.strip())
    return "\n\n".join(str(part) for part in (title, body, caption) if part)
