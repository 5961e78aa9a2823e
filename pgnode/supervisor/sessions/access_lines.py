"""What the core's lines about connections say: who came from where, through which inbound. Pure.

A line is ``2026/11/30 07:34:20.791037 from 192.0.2.1:5678 accepted tcp:example.com:443 [inbound >> outbound] email: alice``.
The address stands with ``tcp:`` or ``udp:`` in front in some protocols, and for what comes through mux. Lines about who was
turned away say ``rejected`` and no e-mail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pgnode.os_support.log_text import printable_bytes
from pgnode.os_support.tcp_ends import plain
from pgnode.supervisor.host.log_ring import Block
from pgnode.xray.config.accounts import email_key

_LINE: Final = re.compile(
    rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)? from (?:(tcp|udp|unix):)?(\S*) (accepted|rejected) (.*)", re.DOTALL
)
#: What stands between the tags of inbound and outbound.
_ARROWS: Final = re.compile(rb" (?:>>|->|==>) ")
_EMAIL: Final = b" email: "
_PORT_MAX: Final = 65535

#: An address and a port.
Peer = tuple[str, int]


class AccessLine(NamedTuple):
    """One line."""

    #: In the ring.
    number: int
    #: Where the connection comes from; a port of 0, or no address, where that is not the socket's other end.
    peer: Peer
    #: Of the inbound; None where the line does not say.
    tag: str | None
    #: The user, as :func:`name_in_log` writes it; None for nobody.
    user: str | None
    udp: bool = False
    #: The line is about a connection within another one (mux), or the protocol writes all of its lines that way.
    within: bool = False


def name_in_log(email: str) -> str:
    """Return by what a user is found in lines."""
    return email_key(printable_bytes(email.encode(errors="surrogatepass")).decode(errors="replace"))


def needle_of(email: str) -> bytes:
    """Return what stands in a line about a connection of this user, in small letters of ASCII."""
    return (_EMAIL + printable_bytes(email.encode(errors="surrogatepass"))).lower()


def needles_of(peer: Peer) -> tuple[bytes, ...]:
    """Return what may stand in a line about a connection from there."""
    text = _text(peer).encode()
    return (b" from " + text + b" ", b":" + text + b" ")


def _text(peer: Peer) -> str:
    address, port = peer
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def lines_of(block: Block) -> Iterator[AccessLine]:
    """Yield the lines about connections in a block, the oldest first."""
    if not block.of_core:
        return
    for place, raw in enumerate(block.lines()):
        line = read_line(raw, block.number + place)
        if line is not None:
            yield line


def read_line(raw: bytes, number: int = 0) -> AccessLine | None:
    """Read one line.

    Args:
        raw: The line.
        number: Its number in the ring.

    Returns:
        What it says; None where it is about something else.
    """
    found = _LINE.match(raw)
    if found is None:
        return None
    network, source, verdict, rest = found.groups()
    rest, _, email = rest.partition(_EMAIL)
    peer = ("", 0) if network == b"unix" else _peer(source)
    user = email_key(email.decode(errors="replace")) if email and verdict == b"accepted" else None
    return AccessLine(number, peer, _tag(rest), user, network == b"udp", network is not None)


def _peer(source: bytes) -> Peer:
    host, _, port = source.decode(errors="replace").rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        return "", 0
    return plain(host.strip("[]")), int(port)


def _tag(rest: bytes) -> str | None:
    """Return the tag of the inbound: where somebody goes has no space in it, so the first bracket behind one is the core's."""
    _, bracket, route = rest.partition(b" [")
    inbound, *outbound = _ARROWS.split(route, maxsplit=1)
    return inbound.decode(errors="replace") if bracket and outbound else None
