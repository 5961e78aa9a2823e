"""Headers of one HTTP/2 connection (HPACK, RFC 7541): what each request begins with, and what answers say. Without I/O.

Request headers are encoded once; from the second request on they are some indexed bytes. The peer keeps no table for its own
headers, so equal answers are equal bytes: those that mean success are known after the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat
from typing import Final, NamedTuple

import hpack

from pgnode.xray.transport.frames import COMPRESSION_ERROR, DEFAULT_TABLE_SIZE, Http2Error

#: Header blocks that are remembered; the core sends two kinds.
KNOWN_MAX: Final = 16


class AnswerBlock(NamedTuple):
    """What one header block of an answer says."""

    http_status: str
    grpc_status: str
    grpc_message: bytes
    #: A call that ends with this was carried out, whatever else its headers said before, unless it was another HTTP status.
    succeeds: bool


def _fields(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


class RequestHeaders:
    """What every request of one method begins with.

    Args:
        path: The method's path.
        table_size: Bytes of the table that the peer keeps for them.
    """

    def __init__(self, path: str, table_size: int) -> None:
        encoder = hpack.Encoder()
        if table_size < DEFAULT_TABLE_SIZE:
            encoder.header_table_size = 0
        fields = _fields(path)
        first, others = encoder.encode(fields), encoder.encode(fields)
        #: Returns the header block of the next request: the first time with the fields spelled out, then by their index.
        self.next: Callable[[], bytes] = chain([first], repeat(others)).__next__


class PathHeaders(RequestHeaders):
    """What requests of any method begin with: ``path`` is that of the next one. No table is used."""

    def __init__(self) -> None:
        self.path = ""
        self._encoder = encoder = hpack.Encoder()
        # The first block says so.
        encoder.header_table_size = 0
        self._blocks: dict[str, bytes] = {}
        self.next = self._next

    def _next(self) -> bytes:
        block = self._blocks.get(self.path)
        if block is None:
            block = self._encoder.encode(_fields(self.path))
            if not self._blocks:
                # Kept without what only the first one says.
                self._blocks[self.path] = self._encoder.encode(_fields(self.path))
            else:
                self._blocks[self.path] = block
        return block


class AnswerHeaders:
    """Reads the header blocks of answers, each in the order in which it came. ``known`` has those that need no reading."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self.known: dict[bytes, AnswerBlock] = {}

    def keep_no_table(self) -> None:
        """Note that from here on the peer keeps no table, and says so at the start of its next headers."""
        self._decoder.max_allowed_table_size = 0

    def decode(self, raw: bytes) -> AnswerBlock:
        """Read a block that is not known.

        Args:
            raw: The block.

        Returns:
            What it says.

        Raises:
            Http2Error: It cannot be decoded; the connection is to be closed.
        """
        try:
            fields = {bytes(name): bytes(value) for name, value in self._decoder.decode(raw, raw=True)}
        except hpack.HPACKError as error:
            raise Http2Error(COMPRESSION_ERROR, f"headers cannot be decoded: {error}") from None
        http_status = fields.get(b":status", b"").decode(errors="replace")
        grpc_status = fields.get(b"grpc-status", b"").decode(errors="replace")
        block = AnswerBlock(
            http_status,
            grpc_status,
            fields.get(b"grpc-message", b""),
            grpc_status == "0" and http_status in ("", "200"),
        )
        # With no table on the peer's side a block of fields means always the same; one that changes the table (its
        # first byte says so) is the first after our SETTINGS and does not come again.
        stateless = self._decoder.header_table_size == 0 and not b"\x20" <= raw[:1] < b"\x40"
        if stateless and block.grpc_status in ("", "0") and not block.grpc_message and len(self.known) < KNOWN_MAX:
            self.known[raw] = block
        return block
