"""Large answers in pieces: nothing is lost or said twice, and what is small stays whole."""

from __future__ import annotations

import falcon.asgi
import pytest

from pgnode.api.rest.response_chunks import CHUNK_BYTES, ResponseChunks, set_body


@pytest.mark.parametrize(
    "size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]
)
async def test_pieces_make_up_the_answer(size: int) -> None:
    answer = bytes(number * 31 % 256 for number in range(1000)) * (size // 1000 + 1)
    pieces = [piece async for piece in ResponseChunks(answer[:size])]
    assert b"".join(pieces) == answer[:size]
    assert {len(piece) for piece in pieces[:-1]} <= {CHUNK_BYTES}


def test_a_small_answer_is_whole_and_a_large_one_says_its_length() -> None:
    small, large = falcon.asgi.Response(), falcon.asgi.Response()
    set_body(small, b"x" * CHUNK_BYTES)
    set_body(large, b"x" * (CHUNK_BYTES + 1))
    assert (small.data, small.stream) == (b"x" * CHUNK_BYTES, None)
    assert (large.data, large.get_header("content-length")) == (None, str(CHUNK_BYTES + 1))
