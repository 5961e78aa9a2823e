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
    first, last = sorted((free_port(), free_port()))
    monkeypatch.setenv(PORTS_VARIABLE, f"{first}-{last}")
    assert first < free_port() < last
    # What was given, and what is in use.
    monkeypatch.setenv(PORTS_VARIABLE, f"{first}-{first}")
    with pytest.raises(OSError, match=f"between {first} and {first}"):
        free_port()
    with socket.socket() as held:
        held.bind(("", 0))
        taken = held.getsockname()[1]
        monkeypatch.setenv(PORTS_VARIABLE, f"{taken}-{taken}")
        with pytest.raises(OSError, match="no free port"):
            free_port()
    # Those of the samples are left to them.
    monkeypatch.setenv(PORTS_VARIABLE, "20400-20400")
    with pytest.raises(OSError, match="no free port"):
        free_port()


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(300)]
    assert len(set(ports)) == len(ports)
