"""Free ports are free, and from the share of them that this process has."""

from __future__ import annotations

import socket

import pytest

from pgnode.testing.ports import PORTS, PORTS_VARIABLE, free_port


def test_a_port_is_free_and_in_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PORTS_VARIABLE, raising=False)
    port = free_port()
    assert port in PORTS
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_share_of_the_ports_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    only = free_port()
    monkeypatch.setenv(PORTS_VARIABLE, f"{only}-{only}")
    assert free_port() == only
    with socket.create_server(("127.0.0.1", only)), pytest.raises(OSError, match=f"between {only} and {only}"):
        free_port()
    # Those of the samples are left to them.
    monkeypatch.setenv(PORTS_VARIABLE, "20400-20400")
    with pytest.raises(OSError, match="no free port"):
        free_port()
