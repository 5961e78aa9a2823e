"""Prints rows of a label and a text, wrapped to the terminal, with colours where it takes them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from pgnode.cli.output import takes_all_characters
from pgnode.cli.rows import Row, Tone
from pgnode.os_support.log_text import printable

#: Columns for the labels, and a space.
LABEL_WIDTH = 10

#: Columns of a line at most, and at least.
WIDTH_MAX, WIDTH_MIN = 120, 40

#: Characters of a text at most.
TEXT_MAX = 2000

_STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.WARN: "yellow", Tone.BAD: "red"}


class Screen:
    """Where a command prints. Without a terminal, or with NO_COLOR, there are no colours.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(highlight=False, markup=False, emoji=False)
        self._width = min(max(self._console.width, WIDTH_MIN), WIDTH_MAX)

    def __repr__(self) -> str:
        return f"Screen({self._width} columns)"

    def head(self, before: str, word: str, after: str, tone: Tone) -> None:
        """Print the first line, its one word in colour."""
        line = Text(before, style="bold")
        line.append(word, style=f"bold {_STYLES[tone]}".strip())
        line.append(printable(after, TEXT_MAX))
        self._console.print(line, soft_wrap=True)

    def rows(self, rows: Iterable[Row]) -> None:
        """Print rows."""
        for row in rows:
            text = printable(row.text, TEXT_MAX)
            lines = textwrap.wrap(
                text, self._width - LABEL_WIDTH, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
            )
            for number, part in enumerate(lines or [""]):
                line = Text(f"{'' if number else row.label:<{LABEL_WIDTH - 1}} ", style="bold")
                line.append(part, style=_STYLES[row.tone])
                self._console.print(line, soft_wrap=True)

    def line(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        """Print one line as it is."""
        self._console.print(Text(printable(text, TEXT_MAX), style=_STYLES[tone]), soft_wrap=True)

    def json(self, value: Any) -> None:
        """Print one JSON value, which is one in every character set."""
        plain = not takes_all_characters(self._console)
        self._console.print(json.dumps(value, indent=2, ensure_ascii=plain), soft_wrap=True)
