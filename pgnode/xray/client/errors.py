"""Errors of the core's API, and how they are told apart.

The core answers nearly every error with the status UNKNOWN and a sentence, so errors are told apart by their text. Statuses and
texts are those of Xray 26.10.10, measured; tests/integration/xray/test_api.py keeps this true against the real core.
"""

from __future__ import annotations

import re
from enum import StrEnum

from pgnode.xray.transport.outcome import (
    GRPC_CANCELLED,
    GRPC_DEADLINE_EXCEEDED,
    GRPC_UNAVAILABLE,
    GRPC_UNKNOWN,
    NAMES,
    Failure,
)


class ErrorKind(StrEnum):
    """What an error of the core's API means to the caller."""

    UNAVAILABLE = "unavailable"  # no connection: the core is not there, or went away
    DEADLINE = "deadline"  # the core did not answer in time; whether it acted is unknown
    ALREADY_EXISTS = "already_exists"  # the user, or the tag, is there already
    NOT_FOUND = "not_found"  # no such user, counter or online entry
    NO_HANDLER = "no_handler"  # no inbound or outbound of this tag
    REFUSED = "refused"  # anything else; the text is the core's reason


class CoreApiError(Exception):
    """A call to the core's API failed. ``str(error)`` is the core's own text."""

    def __init__(self, text: str, kind: ErrorKind) -> None:
        super().__init__(text)
        self.kind = kind

    @property
    def reason(self) -> str:
        """The innermost cause without the Go package that names it: "Unsupported cipher"."""
        return _PACKAGE.sub("", str(self).rsplit(" > ", 1)[-1]).rstrip(".")


class SwapFailedError(CoreApiError):
    """The inbound was removed and the new one refused.

    ``restored`` tells whether the old one is back with the users it had.
    """

    def __init__(self, text: str, kind: ErrorKind, *, restored: bool) -> None:
        super().__init__(text, kind)
        self.restored = restored


#: "proxy/vless: " in front of each link of the core's chain of causes.
_PACKAGE = re.compile(r"^[a-z0-9_/]+: ")
_NO_HANDLER = re.compile(r"handler not found: |not enough information for making a decision")
_ALREADY_EXISTS = re.compile(r"already exists\.?$|existing tag found: ")
_NOT_FOUND = re.compile(r"not found\.?$")


def classify(code: int, text: str) -> ErrorKind:
    """Tell the kind of an error by its gRPC status and the core's text."""
    if code == GRPC_DEADLINE_EXCEEDED:
        return ErrorKind.DEADLINE
    if code in (GRPC_UNAVAILABLE, GRPC_CANCELLED):
        return ErrorKind.UNAVAILABLE
    if _NO_HANDLER.search(text):
        return ErrorKind.NO_HANDLER
    if _ALREADY_EXISTS.search(text):
        return ErrorKind.ALREADY_EXISTS
    if _NOT_FOUND.search(text):
        return ErrorKind.NOT_FOUND
    return ErrorKind.REFUSED


def from_failure(failure: Failure) -> CoreApiError:
    """Translate what the clients of the transport return."""
    code = failure.code if failure.code < len(NAMES) else GRPC_UNKNOWN
    text = failure.text or NAMES[code]
    return CoreApiError(text, classify(code, text))
