"""Tables in Markdown, of texts that nobody has looked at."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def markdown_cell(text: str) -> str:
    """Text that stays in its cell, on its line, and text: a bar, a line's end or a tag in it must not."""
    return " ".join(escape(text, quote=False).replace("|", r"\|").split())


def markdown_rows(headings: Sequence[str], rule: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; ``rule`` aligns each column (``---`` or ``--:``)."""
    lines = [headings, rule, *([markdown_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
