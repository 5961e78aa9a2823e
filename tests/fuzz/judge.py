"""What may be answered to an input, and what may stand in a log. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import hpack
from google.protobuf.message import DecodeError

from pgnode import errors
from pgnode.api.methods import BY_ROUTE, METHODS, Method
from tests.fuzz import http2

#: Errors that the contract knows, but not for a node that is well.
FAULTS = (
    errors.InternalError,
    errors.BusUnavailableError,
    errors.CoreUnavailableError,
    errors.StoreUnavailableError,
    errors.DeadlineExceededError,
    errors.NotInitializedError,
    errors.CoreNotStartedError,
    errors.TooManyCallsError,
)

#: The most that an error says: a panel shows 1,024 characters, and names may be cut in it.
ERROR_CHARACTERS_MAX = 4_096

#: What may be answered to what is no well-formed call, beside what the methods may answer.
_FRAMING = {(400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (404, "NOT_FOUND"), (405, "METHOD_NOT_ALLOWED")}
_FRAMING |= {(411, "LENGTH_REQUIRED"), (413, "PAYLOAD_TOO_LARGE"), (414, "INVALID_ARGUMENT"), (431, "INVALID_ARGUMENT")}
_FRAMING |= {(501, "UNIMPLEMENTED")}

#: What jobs of the maintenance API may answer.
_JOBS: dict[str, tuple[type[errors.NodeError], ...]] = {
    "/node/core_update": (errors.ConflictError, errors.DownloadFailedError, errors.UpdateFailedError),
    "/node/geofiles": (errors.ConflictError, errors.DownloadFailedError, errors.UpdateFailedError),
    "/node/hard_reset": (errors.ConflictError,),
    "/node/update": (errors.ConflictError, errors.UnsupportedError),
}

_LOG_FAULT = re.compile(r"traceback|exception|core dumped|panic|never awaited|a task failed", re.IGNORECASE)


class Malformed(Exception):  # it is a verdict
    """What came is no answer over HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def code(self) -> str:
        """The code of an error; "" where there is none."""
        if "x-error-code" in self.headers:
            return self.headers["x-error-code"]
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def text(self) -> str:
        """The text of an error."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return self.body.decode("utf-8", "replace")


def answers(data: bytes) -> list[Answer]:
    """Return the answers that came on a connection, intermediate ones (1xx) left out. Malformed."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.[01] (\d{3}) [ -~]*", first)
        if not end or match is None:
            raise Malformed(f"no answer, but {head[:200]!r}")
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or name.lower() in ("server",):
                raise Malformed(f"the header {line!r}")
            headers[name.lower()] = value.strip()
        if match[1].startswith("1"):
            continue
        body, data = _body(headers, data)
        found.append(Answer(int(match[1]), headers, body))
    return found


def _body(headers: dict[str, str], data: bytes) -> tuple[bytes, bytes]:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size, end, data = data.partition(b"\r\n")
            if not end:
                raise Malformed("an answer whose chunks have no end")
            length = int(size, 16)
            body, data = body + data[:length], data[length + 2 :]
            if length == 0:
                return body, data
    size_text = headers.get("content-length", "")
    if not size_text.isdigit():
        raise Malformed(f"an answer without a length: {headers}")
    if len(data) < int(size_text):
        raise Malformed(f"an answer of {size_text} bytes was cut after {len(data)}")
    return data[: int(size_text)], data[int(size_text) :]


def _known(classes: Iterable[type[errors.NodeError]]) -> set[tuple[int, str]]:
    return {(found.status, found.code) for found in classes if found not in FAULTS}


def _allowed(route: tuple[str, str] | None) -> set[tuple[int, str]]:
    if route is None:
        return _FRAMING.union(*(_known(row.all_errors) for row in METHODS))
    if route in BY_ROUTE:
        return _known(BY_ROUTE[route].all_errors)
    return _known(
        (errors.InvalidRequestError, errors.TooLargeError, errors.UnauthenticatedError, *_JOBS.get(route[1], ()))
    )


def fault_of_http(route: tuple[str, str] | None, answer: Answer) -> str:
    """Return what is wrong with an answer to a call; "" when the contract knows it."""
    if answer.status == 200:
        return _fault_of_success(BY_ROUTE.get(route) if route else None, answer)
    if (answer.status, answer.code) not in _allowed(route):
        return f"{answer.status} {answer.code or 'without a code'} is not known for {route or 'any call'}: {answer.text[:300]}"
    if not answer.text or len(answer.text) > ERROR_CHARACTERS_MAX:
        return f"an error of {len(answer.text)} characters: {answer.text[:200]!r}"
    if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in answer.text):
        return f"an error with control characters: {answer.text[:300]!r}"
    if answer.status == 503 and "retry-after" not in answer.headers:
        return f"503 without Retry-After: {answer.text[:200]}"
    if answer.code == "USER_REJECTED" and not answer.text.startswith("failed to update users: "):
        return f"a rejected user without the words for it: {answer.text[:200]}"
    return ""


def _fault_of_success(row: Method | None, answer: Answer) -> str:
    kind = answer.headers.get("content-type", "")
    try:
        if kind.startswith("application/json"):
            json.loads(answer.body)
        elif row is not None:
            row.response.FromString(answer.body)
    except (ValueError, DecodeError) as error:
        return f"200 with a body that cannot be read ({error}): {answer.body[:200]!r}"
    return ""


@dataclass(frozen=True, slots=True)
class RpcAnswer:
    """How a call over gRPC ended: its status, or how else."""

    status: int | None
    code: str = ""
    text: str = ""
    reset: bool = False


#: Numbers of gRPC's statuses.
STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def rpc_answers(data: bytes) -> list[RpcAnswer]:
    """Return how the calls on a connection ended, as far as they have."""
    decoder, block, found = hpack.Decoder(), b"", []
    for frame in http2.decode(data):
        if frame.kind == http2.RST_STREAM:
            found.append(RpcAnswer(None, reset=True))
        if frame.kind in (http2.HEADERS, http2.CONTINUATION):
            payload = (
                frame.payload[5:]
                if frame.kind == http2.HEADERS and frame.flags & http2.WITH_PRIORITY
                else frame.payload
            )
            block += payload
            if frame.flags & http2.END_HEADERS:
                headers = {bytes(name): bytes(value) for name, value in decoder.decode(block, raw=True)}
                block = b""
                if b"grpc-status" in headers:
                    text = headers.get(b"grpc-message", b"").decode("latin-1")
                    code = headers.get(b"error-code", b"").decode("latin-1")
                    found.append(RpcAnswer(int(headers[b"grpc-status"]), code, text))
    return found


def is_over(data: bytes) -> bool:
    """Whether the node has ended a call, or the connection."""
    return any(
        frame.kind in (http2.RST_STREAM, http2.GOAWAY)
        or (frame.kind in (http2.HEADERS, http2.DATA) and frame.flags & http2.END_STREAM)
        for frame in http2.decode(data)
    )


def fault_of_rpc(method: str | None, answer: RpcAnswer) -> str:
    """Return what is wrong with how a call ended; "" when the contract knows it."""
    if answer.status is None or answer.status == 0:
        return ""
    name = STATUSES[answer.status] if answer.status < len(STATUSES) else str(answer.status)
    if answer.code:
        known = {
            (error.grpc_status, error.code)
            for row in METHODS
            if method in (None, row.grpc_name)
            for error in row.all_errors
        }
        known -= {(error.grpc_status, error.code) for error in FAULTS}
        known.add(("UNIMPLEMENTED", "UNIMPLEMENTED"))
        return (
            ""
            if (name, answer.code) in known
            else f"{name} {answer.code} is not known for {method}: {answer.text[:300]}"
        )
    # Without a code it comes from gRPC's own library, or the caller has no key.
    return f"{name} without a code: {answer.text[:300]}" if name in ("UNKNOWN", "DATA_LOSS") else ""


def fault_of_log(line: str) -> str:
    """Return the line where it tells of something that must not happen; "" otherwise."""
    return line[:500] if _LOG_FAULT.search(line) else ""
