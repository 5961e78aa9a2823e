"""The host's name, whatever it is."""

from __future__ import annotations

import socket

import pytest

from pgnode.os_support.host_name import host_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("node-1", "node-1"),
        ("", "localhost"),
        ("h\udce4st", r"h\udce4st"),
        ("hast n\nx", r"hast_n\nx"),
        ("häst", r"h\xe4st"),
    ],
)
def test_it_is_plain(name: str, shown: str) -> None:
    assert host_name(name) == shown


def test_one_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_name()

    def fail() -> str:
        raise OSError

    monkeypatch.setattr(socket, "gethostname", fail)
    assert host_name() == "localhost"
