"""Requests over HTTP/1.1: whole calls, and such as are framed in odd ways. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from pgnode.api.methods import METHODS, Method
from tests.fuzz import messages, values
from tests.fuzz.cases import KEY, HttpCase

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

#: Calls that end or replace a core go to the second node; a log has no end.
CALM = [row for row in METHODS if row.grpc_name not in ("Start", "Stop", "GetLogs")]
BY_PATH = {row.path: row for row in METHODS}

#: What follows an odd request: where that was complete, this one is answered and ends the connection.
SENTINEL = f"GET /info HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nConnection: close\r\n\r\n".encode()


def head(method: str, path: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the head of a request with the right key."""
    lines = [f"{method} {path} HTTP/1.1", "Host: node.example", f"x-api-key: {KEY}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def call(
    route: tuple[str, str], body: bytes | None, *headers: tuple[str, str], port: str = "service", second: bool = False
) -> HttpCase:
    """Return a call that is well-formed but for its body."""
    length = [] if body is None else [("Content-Length", str(len(body)))]
    request = head(*route, [*length, *headers])
    parts = (request + (body or b""),)
    return HttpCase(parts, "api" if port == "api" else "service", route, second=second)


def protobuf_call(rng: Random) -> HttpCase:
    """Return a call of a method with the bytes of a message, which may be spoilt."""
    row = rng.choice(CALM)
    if row.grpc_name == "SyncUsersChunked":
        body = messages.some_frames(rng)
        if rng.random() < 0.5:
            return _chunked(rng, row, body)
    else:
        body = messages.some_bytes(rng, row.request)
    accept = [("Accept", JSON)] if rng.random() < 0.2 else []
    return call(row.route, body, ("Content-Type", PROTOBUF), *accept)


def _chunked(rng: Random, row: Method, body: bytes) -> HttpCase:
    coded = b""
    while body:
        size = rng.randrange(1, 200)
        coded, body = coded + b"%x\r\n%b\r\n" % (len(body[:size]), body[:size]), body[size:]
    request = head(*row.route, [("Content-Type", PROTOBUF), ("Transfer-Encoding", "chunked")])
    return HttpCase((request + coded + b"0\r\n\r\n",), route=row.route)


def framing(rng: Random) -> HttpCase:
    """Return an odd request, with :data:`SENTINEL` after it."""
    row = rng.choice(CALM)
    body = messages.some_message(rng, row.request).SerializeToString()[:2000] if row.takes_body else b""
    data = _odd_request(rng, row, body)
    if rng.random() < 0.25:
        data = values.spoil_bytes(rng, data)
    if rng.random() < 0.15:
        return HttpCase(_in_parts(rng, data[: rng.randrange(len(data) + 1)]), ending="cuts", second=rng.random() < 0.5)
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    data += SENTINEL
    parts = _in_parts(rng, data) if rng.random() < 0.3 else (data,)
    return HttpCase(parts, rng.choice(("service", "service", "service", "api")), second=rng.random() < 0.5)


def _in_parts(rng: Random, data: bytes) -> tuple[bytes, ...]:
    borders = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 4)))
    return tuple(data[a:b] for a, b in zip([0, *borders], [*borders, len(data)], strict=True) if a < b)


def _odd_request(rng: Random, row: Method, body: bytes) -> bytes:
    """Return a request of which one or two things are not as they should be."""
    method: str = row.http_method
    path, version = row.path, "HTTP/1.1"
    headers = [("Host", "a"), ("x-api-key", KEY), ("Content-Type", PROTOBUF)]
    lengths: list[tuple[str, str]] = [("Content-Length", str(len(body)))] if row.takes_body else []
    end = "\r\n"

    def odd_line() -> None:
        nonlocal method, path, version
        method = rng.choice(
            ("GET", "PUT", "get", "OPTIONS", "TRACE", "CONNECT", "PRI", "BREW", "", "A" * 5000, "G\x00T", method)
        )
        path = rng.choice(
            ("*", "http://a/info", "//info", "/info?a=b", "/%69nfo", "/info%00", "/../info", "/./info", "/é", path)
        )
        version = rng.choice(
            ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.9", "http/1.1", "", "HTTP/1.1 x", version, version)
        )

    def odd_length() -> None:
        nonlocal lengths
        n = len(body)
        lengths = rng.choice(
            (
                [("Content-Length", str(n)), ("Content-Length", str(n))],
                [("Content-Length", str(n)), ("Content-Length", str(n + 1))],
                [("Content-Length", f"{n}, {n}")],
                [("Content-Length", f"+{n}")],
                [("Content-Length", "-1")],
                [("Content-Length", hex(n))],
                [("Content-Length", f" {n} ")],
                [("Content-Length", "9" * 30)],
                [("Content-Length", "")],
                [("Content-Length", "²")],
                [("Content-Length", str(n + 3))],
                [("Content-Length", str(max(0, n - 3)))],
                [("Content-Length", str(5 << 20))],
                [("Content-Length", str(n)), ("Transfer-Encoding", "chunked")],
                [],
            )
        )

    def odd_chunks() -> None:
        nonlocal lengths, body
        coding = rng.choice(
            (
                "chunked",
                "Chunked",
                "gzip, chunked",
                "chunked, chunked",
                "identity",
                "xchunked",
                "chunked;q=1",
                "\x0bchunked",
            )
        )
        lengths = [("Transfer-Encoding", coding)]
        size = rng.choice(
            (
                f"{len(body):x}",
                f"{len(body):X};ext=1",
                f"0{len(body):x}",
                f"+{len(body):x}",
                f"0x{len(body):x}",
                "-1",
                "f" * 20,
                "",
                "g",
                f"{len(body) + 1:x}",
                f"{len(body):x};" + "e" * 5000,
            )
        )
        newline = rng.choice(("\r\n", "\r\n", "\n", "\r", ""))
        trailer = rng.choice(
            (
                "",
                "",
                "",
                "a: b\r\n",
                "Content-Length: 5\r\n",
                "a" * 9000 + ": b\r\n",
                "no colon\r\n",
                "x-api-key: no\r\n",
            )
        )
        body = f"{size}{newline}".encode("latin-1") + body + f"\r\n0\r\n{trailer}\r\n".encode("latin-1")

    def odd_headers() -> None:
        headers.append(
            rng.choice(
                (
                    ("Expect", "100-continue"),
                    ("Expect", "200-ok"),
                    ("Upgrade", "websocket"),
                    ("Upgrade", "h2c"),
                    ("Connection", "Upgrade, HTTP2-Settings"),
                    ("Connection", "close"),
                    ("Connection", "keep-alive, x-api-key"),
                    ("Host", "b"),
                    ("x-api-key", "other"),
                    ("X-Api-Key", KEY.upper()),
                    ("Authorization", "Bearer"),
                    ("Authorization", f"Basic {KEY}"),
                    ("Authorization", f"bearer {{{KEY}}}"),
                    ("Content-Type", "text/plain"),
                    ("Content-Type", "application/json; charset=utf-16"),
                    ("Content-Type", ";;=,,"),
                    ("Content-Encoding", "gzip"),
                    ("Accept", "application/json;q=zz, */*;q=1e999"),
                    ("Accept", "," * 3000),
                    ("Accept", "text/event-stream"),
                    ("Range", "bytes=0-1"),
                    ("If-None-Match", "*"),
                    ("X-Forwarded-For", "::1"),
                    ("Cookie", "a=b; " * 100),
                    ("Date", "\xff\xfe"),
                    ("a" * 9000, "b"),
                    ("a", "b" * 9000),
                    ("a b", "c"),
                    ("a\x00", "c"),
                    ("", "c"),
                    (" folded", "c"),
                    ("a", "b\r\n continued"),
                    ("a", "b\rc"),
                    ("a", "b\nc"),
                    ("a", "b\x00c"),
                )
            )
        )

    def many_headers() -> None:
        headers.extend((f"h{number}", "v") for number in range(rng.choice((90, 120, 1000))))

    def odd_end() -> None:
        nonlocal end
        end = rng.choice(("\n", "\r", "\r\n\r\n", "\r\r\n", "\x00"))

    def no_key() -> None:
        headers[1] = rng.choice((("a", "b"), ("x-api-key", ""), ("x-api-key", "\xff" * 36), ("x-api-key", "a" * 5000)))

    def pipelined() -> None:
        nonlocal body
        body += head("GET", "/info", []) * rng.randrange(1, 20)

    odd: Sequence[Callable[[], None]] = (
        odd_line, odd_length, odd_length, odd_chunks, odd_chunks, odd_headers, odd_headers, many_headers, odd_end, no_key,
        pipelined,
    )  # fmt: skip
    for change in rng.sample(odd, rng.choice((1, 1, 2))):
        change()
    rng.shuffle(headers)
    lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in [*headers, *lengths])]
    return "".join(line + end for line in lines).encode("latin-1", "replace") + b"\r\n" + body
