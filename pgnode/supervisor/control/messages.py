"""What is said over the control socket: one line of JSON asks, one line of JSON answers, then the connection ends. Pure.

``{"ask": "status"}`` is answered ``{"answer": …}``, or ``{"error": "a sentence"}``. What else there is to say stands beside it:
``{"ask": "logs", "with": {"after": 7}}``. Both sides may be of different versions: after an upgrade the commands are new, and the
supervisor is not. What one does not know it leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: The socket, in the run folder.
SOCKET_NAME: Final = "control.sock"

#: Bytes of a question, and of an answer, at most.
QUESTION_MAX: Final = 64 * 1024
ANSWER_MAX: Final = 256 * 1024 * 1024

#: Questions.
STATUS: Final = "status"
USERS: Final = "users"
SETTINGS: Final = "settings"
WORKERS: Final = "workers"
TRAFFIC: Final = "traffic"
LIVE: Final = "live"
LOGS: Final = "logs"
LOG_LEVEL: Final = "log-level"
DRAIN: Final = "drain"
SESSIONS: Final = "sessions"


class RefusedError(Exception):
    """The supervisor said why it does not answer; the text is its sentence."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what else is said with it."""

    ask: str
    values: Mapping[str, Any] = field(default_factory=dict)


def encode_question(question: Question) -> bytes:
    """Return the line that asks."""
    asked: dict[str, Any] = {"ask": question.ask}
    if question.values:
        asked["with"] = dict(question.values)
    return json.dumps(asked).encode() + b"\n"


def decode_question(line: bytes) -> Question:
    """Read what :func:`encode_question` made.

    Args:
        line: The line.

    Returns:
        What is asked.

    Raises:
        ValueError: It is no question.
    """
    try:
        said = json.loads(line)
        asked, values = said["ask"], said.get("with", {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError('a question is a line such as {"ask": "status"}') from None
    if not isinstance(asked, str):
        raise ValueError("what is asked is no text")
    if not isinstance(values, dict):
        raise ValueError("what is said with it is no object")
    return Question(asked, values)


def encode_answer(answer: Mapping[str, Any]) -> bytes:
    """Return the line that answers."""
    return json.dumps({"answer": answer}).encode() + b"\n"


def encode_error(sentence: str) -> bytes:
    """Return the line that says why there is no answer."""
    return json.dumps({"error": sentence}).encode() + b"\n"


def decode_answer(line: bytes) -> dict[str, Any]:
    """Read what :func:`encode_answer` or :func:`encode_error` made.

    Args:
        line: The line.

    Returns:
        The answer.

    Raises:
        RefusedError: There is none, and this is why.
        ValueError: It is neither.
    """
    try:
        said = json.loads(line)
        if "error" in said:
            raise RefusedError(str(said["error"]))
        answer = said["answer"]
    except (TypeError, KeyError, RecursionError):
        raise ValueError("the supervisor's answer is none") from None
    if not isinstance(answer, dict):
        raise ValueError("the supervisor's answer is none")
    return answer
