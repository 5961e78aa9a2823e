"""wireguard-go is told what it has to know; a program of the test stands in for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pgnode.testing import wireguard_go
from pgnode.testing.wireguard import addresses, interface, peer
from pgnode.testing.wireguard_go import WireguardGo, WireguardGoError
from pgnode.xray.config.peers import key_hex

#: Takes one configuration on its socket, writes it beside that, and waits for its end.
PROGRAM = """#!{python} -S
import signal, socket, sys
if {dies}:
    sys.exit(1)
server = socket.socket(socket.AF_UNIX)
server.bind("{folder}/" + sys.argv[2] + ".sock")
server.listen()
taken, _ = server.accept()
text = b""
while not text.endswith(b"\\n\\n"):
    text += taken.recv(65536)
open("{folder}/told", "wb").write(text)
taken.sendall(b"errno={errno}\\n\\n")
signal.pause()
"""
IP = """#!/bin/sh
echo "$@" >> {folder}/ip.log
[ "{fails}" = no ] || {{ echo no such device >&2; exit 2; }}
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    write(tmp_path)
    return tmp_path


def write(folder: Path, *, dies: bool = False, errno: int = 0, ip_fails: str = "no") -> None:
    for name, text in (
        ("wireguard-go", PROGRAM.format(python=sys.executable, folder=folder, dies=dies, errno=errno)),
        ("ip", IP.format(folder=folder, fails=ip_fails)),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


async def test_a_client(programs: Path) -> None:
    config, user = interface(), peer("117", addresses(2))
    async with WireguardGo.client(config, user, "198.51.100.1", sockets=programs) as client:
        assert client.pid > 0
        told = (programs / "told").read_text().split("\n")
        assert told[0] == "set=1"
        assert f"public_key={key_hex(config['public_key'])}" in told
        assert f"preshared_key={key_hex(config['pre_shared_key'])}" in told
        assert f"endpoint=127.0.0.1:{config['listen_port']}" in told
        assert (programs / "ip.log").read_text().split("\n")[:3] == [
            f"address add 10.66.0.2/32 dev {client.name}",
            f"link set {client.name} mtu 1420 up",
            f"route add 198.51.100.1/32 dev {client.name}",
        ]


async def test_a_server(programs: Path) -> None:
    users = [peer("117", addresses(2)), peer("118", addresses(3))]
    async with WireguardGo.server(interface(), users, "198.51.100.1/24", sockets=programs) as server:
        told = (programs / "told").read_text().split("\n")
        assert f"listen_port={server.config['listen_port']}" in told
        assert [line for line in told if line.startswith("allowed_ip=10.")] == [
            "allowed_ip=10.66.0.2/32",
            "allowed_ip=10.66.0.3/32",
        ]
        assert f"route add 10.66.0.3/32 dev {server.name}" in (programs / "ip.log").read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dies": True}, "wireguard-go ended before"),
        ({"errno": 22}, "did not take its configuration"),
        ({"ip_fails": "yes"}, "no such device"),
    ],
)
async def test_what_fails_is_said(programs: Path, options: dict[str, object], text: str) -> None:
    write(programs, **options)  # type: ignore[arg-type]
    with pytest.raises(WireguardGoError, match=text):
        async with WireguardGo.client(interface(), peer("117", addresses(2)), "198.51.100.1", sockets=programs):
            pass


async def test_a_machine_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wireguard_go.missing().startswith("wireguard-go, ip")
    with pytest.raises(WireguardGoError, match="not on the PATH"):
        async with WireguardGo.client(interface(), peer("117", addresses(2)), "198.51.100.1", sockets=tmp_path):
            pass
