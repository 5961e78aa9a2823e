"""What tests of the doctor's checks share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from pgnode.cli.findings import Finding
from pgnode.settings import Settings, load
from tests.support.identities import make_identity


def settings_with_identity(folder: Path) -> Settings:
    """Make a state folder with a key and a certificate; the ports are those that nobody has."""
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (one, two)]
    made = load(
        state_dir=str(folder / "state"),
        node_host="127.0.0.1",
        service_protocol="grpc",
        service_port=ports[0],
        api_port=ports[1],
    )
    make_identity(made)
    return made


def only(found: Iterator[Finding]) -> Finding:
    (one,) = found
    return one


def levels(found: Iterator[Finding]) -> list[str]:
    return [one.level for one in found]
