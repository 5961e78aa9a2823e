"""Open connections by the port that they came to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pgnode.os_support.tcp_counts import open_connections

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def test_those_that_are_open_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "7" / "net"
    folder.mkdir(parents=True)
    rows = ["0100007F:01BB 0200007F:C000 01", "0100007F:01BB 0200007F:C001 08", "0100007F:01BB 0200007F:C002 06"]
    rows += ["00000000:01BB 00000000:0000 0A", "0100007F:0050 0200007F:01BB 01", "odd"]
    (folder / "tcp").write_text(HEAD + "".join(f"   0: {row} 00000000:00000000 00:0 0\n" for row in rows))
    address = "0000000000000000FFFF00000100007F"
    (folder / "tcp6").write_text(f"{HEAD}   0: {address}:01BB {address}:C003 01 0 0\n   1: {address}:01BC 0:0 01 0 0\n")
    assert open_connections(7, {443, 444, 445}, proc=tmp_path) == {443: 3, 444: 1}


def test_of_a_process_that_has_gone_there_are_none(tmp_path: Path) -> None:
    assert open_connections(7, {443}, proc=tmp_path) == {}


def test_real_ones_are_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert open_connections(os.getpid(), {port}) == {}
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert open_connections(os.getpid(), {port}) == {port: 1}
