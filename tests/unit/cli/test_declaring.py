"""How a command ends."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pgnode.cli import main
from pgnode.cli.declaring import carry_out
from pgnode.errors import NotRunningError


def test_a_command_ends_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        carry_out(lambda: 4)
    assert ended.value.code == 4

    def fails() -> int:
        raise NotRunningError("no node runs")

    with pytest.raises(SystemExit) as ended:
        carry_out(fails)
    assert (ended.value.code, capsys.readouterr().err) == (3, "pgnode: no node runs\n")


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--state-dir", ""],
        ["run", "--state-dir", ""],
        ["run", "--env-file", ""],
        ["restore", ""],
        ["backup", ""],
        ["check-config", ""],
        ["worker", "rest", "--env-file", ""],
    ],
)
def test_an_empty_path_is_not_the_working_folder(words: list[str]) -> None:
    found = CliRunner().invoke(main, words)
    assert (found.exit_code, "an empty path names nothing" in found.output) == (2, True)


@pytest.mark.parametrize("option", ["--node", "--json"])
def test_an_option_before_the_command_is_told_where_it_belongs(option: str) -> None:
    found = CliRunner().invoke(main, [option, "east", "status"])
    assert (found.exit_code, f"Error: {option} stands behind the command: pgnode status" in found.output) == (2, True)
    other = CliRunner().invoke(main, ["--nod", "east"])
    assert (other.exit_code, "No such option '--nod'" in other.output) == (2, True)
