"""What a config binds, and who is in whose way."""

from __future__ import annotations

import pytest

from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.listeners import (
    MAX_CLAIMS,
    Claim,
    Listener,
    claims_of,
    conflict,
    listeners,
    metrics_fault,
    metrics_listener,
    plain_address,
)

TCP, UDP = frozenset({"tcp"}), frozenset({"udp"})


def spec(port: int, kinds: frozenset[str] = TCP, listen: str = "127.0.0.1", tag: str = "in") -> InboundSpec:
    return InboundSpec(tag=tag, protocol="vless", listen=listen, ports=((port, port),), kinds=kinds)


def tun(tag: str, device: str = "") -> InboundSpec:
    return InboundSpec(tag=tag, protocol="tun", kinds=frozenset(), device=device)


def test_listeners_of_inbounds() -> None:
    both = InboundSpec("a", "shadowsocks", "", ((1, 2), (9, 9)), kinds=TCP | UDP)
    assert [str(listener) for listener in listeners(both)] == [
        f"port {port} on 0.0.0.0 ({kind})" for port in (1, 2, 9) for kind in ("tcp", "udp")
    ]
    assert list(listeners(spec(5, listen="localhost"))) == [Listener("tcp", "127.0.0.1", 5)]
    assert list(listeners(spec(5, listen="[::1]"))) == [Listener("tcp", "::1", 5)]
    assert list(listeners(spec(5, listen="/run/a.sock,0666"))) == [Listener("unix", "/run/a.sock")]
    assert list(listeners(spec(5, listen="@name"))) == [Listener("unix", "@name")]
    assert list(listeners(spec(5, listen="env:ADDRESS"))) == []


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("", "0.0.0.0"),
        ("localhost", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("env:ADDRESS", None),
        ("node.example", None),
    ],
)
def test_one_address_is_written_in_one_way(listen: str, address: str | None) -> None:
    assert plain_address(listen) == address


def test_claims_name_their_part_and_are_not_too_many() -> None:
    wide = InboundSpec("wide", "vless", "", ((1, 65535),), number=1)
    untagged = InboundSpec("", "socks", "", ((7, 7),), number=3)
    assert claims_of([untagged], {"listen": ":9"}) == [
        Claim("metrics", Listener("tcp", "::", 9)),
        Claim("inbound #3", Listener("tcp", "0.0.0.0", 7)),
    ]
    assert len(claims_of([wide, untagged])) == MAX_CLAIMS


@pytest.mark.parametrize(
    ("inbounds", "metrics", "said"),
    [
        ([spec(1, tag="a"), spec(2, tag="b")], None, None),
        ([spec(1, tag="a"), spec(1, tag="b")], None, "inbound 'b': port 1 on 127.0.0.1 (tcp) is that of inbound 'a'"),
        ([spec(1, tag="a"), spec(1, UDP, tag="b")], None, None),
        ([spec(1, tag="a"), spec(1, listen="127.0.0.2", tag="b")], None, None),
        ([spec(1, tag="a"), spec(1, listen="0.0.0.0", tag="b")], None, None),
        (
            [spec(1, listen="", tag="a"), spec(1, listen="0.0.0.0", tag="b")],
            None,
            "inbound 'b': port 1 on all addresses",
        ),
        (
            [spec(1, listen="::", tag="a"), spec(1, listen="0.0.0.0", tag="b")],
            None,
            "'b': port 1 on all addresses (tcp)",
        ),
        ([spec(1, listen="::", tag="a"), spec(1, listen="::1", tag="b")], None, None),
        (
            [spec(0, listen="/a/b", tag="a"), spec(0, listen="/link/b", tag="b")],
            None,
            "'b': unix socket /a/b is that of",
        ),
        ([tun("a", "t0"), tun("b", "t0")], None, "inbound 'b': network device 't0' is that of inbound 'a'"),
        ([tun("a"), tun("b")], None, None),
        ([tun("a"), tun("b", "other")], None, None),
        (
            [spec(1, listen="", tag="a")],
            {"listen": "127.0.0.1:1"},
            "inbound 'a': port 1 on 0.0.0.0 (tcp) is that of metrics",
        ),
        ([spec(1, tag="a")], {"listen": ":1"}, "inbound 'a': port 1 on 127.0.0.1 (tcp) is that of metrics"),
        ([spec(1, listen="127.0.0.2", tag="a")], {"listen": "127.0.0.1:1"}, None),
        ([spec(2, tag="a")], {"listen": ":1"}, None),
        ([spec(1, TCP | UDP, tag="a"), spec(1, UDP, tag="b")], None, "inbound 'b': port 1 on 127.0.0.1 (udp)"),
        ([InboundSpec("a", "vless", "", ((1, 9),)), spec(5, listen="", tag="b")], None, "inbound 'b': port 5 on"),
        ([spec(5, listen="", tag="b"), InboundSpec("a", "vless", "", ((1, 9),))], None, "inbound 'a': port 5 on"),
        ([InboundSpec("a", "vless", "", ((1, 9), (2, 3)))], None, None),
        (
            [InboundSpec("w", "vless", "", ((1, 65535),)), spec(60000, listen="", tag="b")],
            None,
            "inbound 'b': port 60000 on",
        ),
        (
            [InboundSpec("w", "vless", "", ((1, 90),)), InboundSpec("w", "vless", "", ((2, 3),)), spec(80, listen="")],
            None,
            "port 2 on",
        ),
        ([spec(0, listen="/a", tag="a"), spec(0, listen="/a,0666", tag="b")], None, "inbound 'b': unix socket /a is"),
        (
            [spec(0, listen="/a", tag="a"), spec(0, listen="/a.lock", tag="b")],
            None,
            "inbound 'b': unix socket /a.lock is that of inbound 'a'",
        ),
        ([spec(0, listen="@a", tag="a"), spec(0, listen="@b", tag="b")], None, None),
        ([spec(1, listen="env:A", tag="a"), spec(1, listen="env:A", tag="b")], None, None),
        ([spec(1, tag="a")], {"listen": "127.0.0.1:1"}, "inbound 'a': port 1 on 127.0.0.1 (tcp) is that of metrics"),
        ([spec(1, UDP, tag="a")], {"listen": "127.0.0.1:1"}, None),
    ],
)
def test_two_parts_at_one_socket(inbounds: list[InboundSpec], metrics: object, said: str | None) -> None:
    found = conflict(inbounds, metrics, lambda path: path.replace("/link/", "/a/"))
    assert (found is None) == (said is None)
    assert said is None or (found or "").find(said) >= 0, found


@pytest.mark.parametrize(
    ("listen", "listener", "is_fault"),
    [
        ("127.0.0.1:11111", Listener("tcp", "127.0.0.1", 11111), False),
        ("[::1]:80", Listener("tcp", "::1", 80), False),
        (":80", Listener("tcp", "::", 80), False),
        ("localhost:80", Listener("tcp", "127.0.0.1", 80), False),
        ("node.example:80", None, True),
        ("127.0.0.1:http", None, True),
        ("", None, False),
        (None, None, False),
        ("127.0.0.1", None, True),
        ("abc", None, True),
        ("127.0.0.1:0", None, True),
        ("127.0.0.1:70000", None, True),
        ("127.0.0.1:", None, True),
        ("/run/m.sock", None, True),
        (5, None, True),
    ],
)
def test_where_the_metrics_listen(listen: object, listener: Listener | None, is_fault: bool) -> None:
    section = {"tag": "m", "listen": listen}
    assert metrics_listener(section) == listener
    fault = metrics_fault(section)
    assert (fault is not None) == is_fault
    assert fault is None or fault.startswith("metrics: listen ")


def test_no_metrics() -> None:
    assert [metrics_listener(None), metrics_listener([]), metrics_fault(None)] == [None] * 3
