"""``pgnode workers`` and what is below it, as they are declared."""

from __future__ import annotations

from click.testing import CliRunner

from pgnode.cli import main


def test_help_names_what_each_does() -> None:
    text = CliRunner().invoke(main, ["workers", "--help"]).output
    for name in ("add", "remove", "restart"):
        assert f"\n  {name} " in text
    assert "no call fails" in text
    assert "--grpc" in CliRunner().invoke(main, ["workers", "add", "--help"]).output
