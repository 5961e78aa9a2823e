"""Lines over the control socket."""

from __future__ import annotations

import pytest

from pgnode.supervisor.control.messages import (
    Question,
    RefusedError,
    decode_answer,
    decode_question,
    encode_answer,
    encode_error,
    encode_question,
)


def test_a_question_comes_as_it_was_asked() -> None:
    for question in (Question("status"), Question("logs", {"after": 3})):
        assert decode_question(encode_question(question)) == question
    assert encode_question(Question("status")) == b'{"ask": "status"}\n', "as an earlier version asks"


@pytest.mark.parametrize(
    "line",
    [b"", b"status\n", b"[]\n", b"{}\n", b'{"ask": 3}\n', b'{"ask": "x", "with": 3}\n', b"[" * 20_000, b"\xff\xfe"],
)
def test_what_is_no_question_is_told(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"a question is|no text|no object"):
        decode_question(line)


def test_an_answer_comes_as_it_was_given() -> None:
    assert decode_answer(encode_answer({"state": "running", "users": 3})) == {"state": "running", "users": 3}


def test_a_refusal_is_its_sentence() -> None:
    with pytest.raises(RefusedError, match=r"^not for you$"):
        decode_answer(encode_error("not for you"))


@pytest.mark.parametrize("line", [b"", b"HTTP/1.1 400\r\n", b"[]", b"3", b"{}", b'{"answer": 3}', b"[" * 20_000])
def test_what_is_no_answer_is_told(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any text
        decode_answer(line)
