"""Names that lead to a socket of this host."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pgnode.os_support.own_names import names_among, own_names

HOSTS = """\
127.0.0.1 localhost
127.0.1.1\tNode.example.com node # no-name
::1 ip6-localhost
10.0.0.5 inside
10.0.0.9 another
nonsense here
fe80::1%eth0 link
"""


@pytest.mark.parametrize(
    ("listening", "more"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("10.0.0.5", {"10.0.0.5", "inside"}),
        ("0.0.0.0", {"10.0.0.5", "inside", "fe80::1", "link"}),
        ("::", {"10.0.0.5", "inside", "fe80::1", "link"}),
        ("no address", set()),
    ],
)
def test_names_that_lead_there(listening: str, more: set[str]) -> None:
    found = names_among(HOSTS, listening, ["10.0.0.5", "fe80::1%eth0", "02:00:00:00:00:01"])
    assert found == {"localhost", "node.example.com", "node", "ip6-localhost"} | more


def test_the_hosts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    assert own_names("127.0.0.1", hosts) == {"127.0.0.1"}, "no file"
    hosts.write_bytes(b"127.0.0.1 here \xff\n")
    assert "here" in own_names("127.0.0.1", hosts)

    def fail() -> dict[str, list[object]]:
        raise OSError

    monkeypatch.setattr(psutil, "net_if_addrs", fail)
    assert own_names("::", hosts) == {"here", "�"}
