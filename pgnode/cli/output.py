"""What the operator's commands print. Names in it come from outside, so nothing in it is obeyed by a terminal."""

from __future__ import annotations

import click

from pgnode.os_support.log_text import printable_lines


def say(text: str, *, error: bool = False) -> None:
    """Print one or more lines.

    Args:
        text: The lines, whatever they hold.
        error: To standard error.
    """
    click.echo(printable_lines(text), err=error)
