"""What a worker offers is what the service needs; mypy compares the signatures."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.api.service.ports import Commands, LogSource, Reads
from pgnode.bus.client import CommandClient
from pgnode.worker.log_hub import LogHub
from pgnode.worker.snapshots import LocalSnapshots
from tests.unit.api.fakes import FakeCommands, FakeLogs, FakeReads

READS: list[Reads] = [LocalSnapshots(), FakeReads()]
COMMANDS: list[type[Commands]] = [CommandClient, FakeCommands]
LOGS: list[type[LogSource]] = [LogHub, FakeLogs]


@pytest.mark.parametrize(
    ("port", "offered"),
    [
        *((Reads, offered) for offered in READS),
        *((Commands, offered) for offered in COMMANDS),
        *((LogSource, offered) for offered in LOGS),
    ],
)
def test_every_member_of_a_port_is_there(port: type[Any], offered: Any) -> None:
    members = {name for name in vars(port) if not name.startswith("_")}
    assert members
    assert members <= set(dir(offered))
