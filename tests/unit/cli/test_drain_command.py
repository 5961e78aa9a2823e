"""``pgnode drain``, as it is declared."""

from __future__ import annotations

from click.testing import CliRunner

from pgnode.cli import main


def test_help_says_what_it_does() -> None:
    text = CliRunner().invoke(main, ["drain", "--help"]).output
    for option in ("--for TIME", "--hold", "--wait TIME", "--cancel", "--json", "--state-dir"):
        assert option in text
    assert "while those there are go on" in " ".join(text.split())
