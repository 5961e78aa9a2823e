"""How a command ends."""

from __future__ import annotations

import pytest

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
