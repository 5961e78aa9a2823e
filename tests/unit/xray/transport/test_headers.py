"""Header blocks: those of requests get short, those of answers are remembered where they always mean the same."""

from __future__ import annotations

import hpack
import pytest

from pgnode.xray.transport.frames import DEFAULT_TABLE_SIZE, Http2Error
from pgnode.xray.transport.headers import KNOWN_MAX, AnswerHeaders, PathHeaders, RequestHeaders

PATH = "/service/Method"


def _answer(encoder: hpack.Encoder, *fields: tuple[str, str]) -> bytes:
    block: bytes = encoder.encode(list(fields), huffman=False)
    return block


@pytest.mark.parametrize("table_size", [0, 100, DEFAULT_TABLE_SIZE])
def test_requests_mean_the_same_each_time(table_size: int) -> None:
    headers, decoder = RequestHeaders(PATH, table_size), hpack.Decoder()
    blocks = [headers.next() for _ in range(3)]
    for block in blocks:
        fields = dict(decoder.decode(block, raw=True))
        assert (fields[b":path"], fields[b"te"]) == (PATH.encode(), b"trailers")
    assert blocks[1] == blocks[2]
    if table_size == DEFAULT_TABLE_SIZE:
        assert len(blocks[1]) < len(blocks[0]) / 4, "only indexes"


def test_paths_that_change() -> None:
    headers, decoder = PathHeaders(), hpack.Decoder()
    for path in ("/a", "/b", "/a", "/a", "/c", "/b"):
        headers.path = path
        assert dict(decoder.decode(headers.next(), raw=True))[b":path"] == path.encode()
    assert decoder.header_table_size == 0, "the first block said that no table is used"


def test_blocks_of_success_are_known_from_then_on() -> None:
    headers, peer = AnswerHeaders(), hpack.Encoder()
    headers.decode(_answer(peer, ("grpc-status", "0")))
    assert headers.known == {}, "with a table the same bytes may come to mean something else"
    headers.keep_no_table()
    peer.header_table_size = 0
    headers.decode(_answer(peer, ("grpc-status", "0")))
    assert headers.known == {}, "a block that changes the table is not one that comes again"
    good = _answer(peer, ("grpc-status", "0"))
    assert headers.decode(good).succeeds
    assert headers.known[good].succeeds
    bad = headers.decode(_answer(peer, ("grpc-status", "2"), ("grpc-message", "no")))
    assert (bad.grpc_status, bad.grpc_message, bad.succeeds) == ("2", b"no", False)
    assert len(headers.known) == 1, "errors have too many texts"
    for number in range(2 * KNOWN_MAX):
        headers.decode(_answer(peer, ("x-number", str(number))))
    assert len(headers.known) == KNOWN_MAX


@pytest.mark.parametrize(("status", "succeeds"), [("200", True), ("502", False)])
def test_another_http_status_is_no_success(status: str, succeeds: bool) -> None:
    block = AnswerHeaders().decode(_answer(hpack.Encoder(), (":status", status), ("grpc-status", "0")))
    assert (block.http_status, block.succeeds) == (status, succeeds)


def test_what_cannot_be_decoded_ends_the_connection() -> None:
    with pytest.raises(Http2Error, match="headers cannot be decoded"):
        AnswerHeaders().decode(b"\xff\xff\xff")
