"""Lines of the screen."""

from __future__ import annotations

from pgnode.cli.rows import Row, Tone


def test_a_row_is_plain_unless_it_is_said_how_it_is() -> None:
    assert Row("core", "text").tone is Tone.PLAIN
    assert Row("core", "text", Tone.BAD) != Row("core", "text")
