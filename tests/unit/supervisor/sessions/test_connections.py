"""Users' connections are counted by inbound, those with none too; what has no port of TCP is left out."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace
from typing import Any, cast

from pgnode.supervisor.sessions.connections import count_connections, names_by_port
from pgnode.xray.config.inbounds import InboundSpec


def base_of(*inbounds: InboundSpec) -> Any:
    return SimpleNamespace(inbounds=inbounds)


def test_a_port_is_the_first_inbounds() -> None:
    base = base_of(
        InboundSpec("a", "vless", ports=((1, 2),)),
        InboundSpec("b", "vless", ports=((2, 3),)),
        InboundSpec("", "vless", ports=((9, 9),), number=3),
        InboundSpec("udp", "hysteria", ports=((7, 7),), kinds=frozenset({"udp"})),
    )
    assert names_by_port(base) == {1: "a", 2: "a", 3: "b", 9: "inbound #3"}


async def test_open_ones_are_counted() -> None:
    core = cast("Any", SimpleNamespace(pid=os.getpid()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        base = base_of(InboundSpec("a", "vless", ports=((port, port),)), InboundSpec("b", "vless", ports=((1, 1),)))
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            assert await count_connections(core, base) == {"a": 1, "b": 0}
    assert await count_connections(None, base) == {}
    assert await count_connections(core, None) == {}
