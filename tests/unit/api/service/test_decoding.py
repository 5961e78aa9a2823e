"""Messages of callers, read."""

from __future__ import annotations

import pytest

from pgnode.api.service.decoding import decode
from pgnode.errors import InvalidRequestError
from pgnode.wire import service_pb2 as pb


def test_a_message_is_read() -> None:
    assert decode(pb.User, pb.User(email="alice").SerializeToString()).email == "alice"


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x02\xff\xfe"], ids=["no message", "no UTF-8"])
def test_a_malformed_one_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="malformed User: the body is not a User message"):
        decode(pb.User, body)
