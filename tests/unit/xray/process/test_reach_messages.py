"""What a supervisor and the thread in the core's process say to each other comes through whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.tcp_ends import Connection, Door, Seen
from pgnode.xray.process.reach_messages import Question, decode_answer, encode_answer, encode_failure

_ADDRESSES = st.ip_addresses().map(str)
_PORTS = st.integers(0, 65535)


@given(st.lists(st.tuples(_ADDRESSES, _PORTS, st.integers(0, 3))), st.booleans())
def test_a_question_comes_through(targets: list[tuple[str, int, int]], listed: bool) -> None:
    asked = Question([Door("", ((1, 2), (5, 5))), Door("::1", ())], targets, listed)
    assert Question.decode(asked.encode()) == asked


@given(st.lists(st.tuples(st.integers(0, 3), _ADDRESSES, _PORTS)))
def test_an_answer_comes_through(found: list[tuple[int, str, int]]) -> None:
    seen = Seen([(place, Connection(a, port, a, port)) for place, a, port in found], [(a, p, n) for n, a, p in found])
    assert decode_answer(encode_answer(seen)) == seen


def test_a_failure_is_told() -> None:
    with pytest.raises(OSError, match="no descriptor"):
        decode_answer(encode_failure("no descriptor"))


@pytest.mark.parametrize("line", [b"[]\n", b"7\n", b"{}\n", b'{"found": [1], "cut": []}\n', b"no\n"])
def test_anything_else_is_none(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_answer(line)
