"""The load generator's process: ``python -m bench.load_process <pid of the parent>``, the order as JSON on stdin.

It shares the machine with the server it measures, so it does as little as it can: non-blocking TLS sockets and one
epoll, no event loop, requests as bytes from a file, of an answer only the status, the length and the end.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import select
import signal
import socket
import ssl
import sys
import time
from array import array
from typing import Any

from bench.load import LENGTH
from bench.samples import percentile
from pgnode.os_support.pdeath import die_with_parent

#: One TLS record is 16 KiB at most, and one read returns one record at most.
_READ_BYTES = 64 * 1024
#: Connections that may break before the round is given up.
_BROKEN_MAX = 1000
#: How long connecting may take.
_CONNECT_SECONDS = 10.0
_HEAD_END = b"\r\n\r\n"


class _Connection:
    """One connection and the request that is under way on it."""

    __slots__ = ("began", "head", "missing", "out", "sock", "status", "waits")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        #: What is left to send.
        self.out = memoryview(b"")
        self.began = 0.0
        #: The answer's head as far as it has come; None when it is complete.
        self.head: bytes | None = b""
        #: Bytes of the body that have not come yet.
        self.missing = 0
        self.status = 0
        #: Whether epoll tells when there is room to send.
        self.waits = False


class Generator:
    """One round of load."""

    def __init__(self, order: dict[str, Any], requests: list[bytes]) -> None:
        self._host, self._port = order["host"], int(order["port"])
        self._seconds, self._warm_up = float(order["seconds"]), float(order["warm_up_seconds"])
        self._grace = float(order["grace_seconds"])
        self._count = int(order["connections"])
        self._requests = requests
        self._next = int(order["first"]) % len(requests)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # What is measured is on loopback and was started by the bench; checking its certificate is the tests' work.
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._buffer = bytearray(_READ_BYTES)
        self._latencies = array("d")
        self._sent = self._refused = self._broken = 0
        self._first_refusal = ""
        self._idle = 0

    def run(self) -> dict[str, Any]:
        """The fields of bench.load.LoadResult. OSError when the server does not take connections."""
        for _ in range(self._count):
            self._connect()
        gc.collect()
        gc.disable()
        begin = time.perf_counter() + self._warm_up
        end = begin + self._seconds
        for connection in list(self._connections.values()):
            self._send_next(connection)
        self._pump(begin, end)
        return {
            "answers": len(self._latencies),
            "seconds": self._seconds,
            "p50_ms": percentile(self._latencies, 0.5) * 1000,
            "p99_ms": percentile(self._latencies, 0.99) * 1000,
            "refused": self._refused,
            "first_refusal": self._first_refusal,
            "broken": self._broken,
            "sent": self._sent,
        }

    def _pump(self, begin: float, end: float) -> None:
        """Until ``end``, and then until every request that is under way has its answer: a cut one would be half done."""
        give_up = end + self._grace
        connections, now = self._connections, time.perf_counter()
        while self._idle < len(connections) and now < give_up and self._broken < _BROKEN_MAX:
            for descriptor, events in self._epoll.poll(0.1):
                connection = connections.get(descriptor)
                if connection is None:
                    continue
                try:
                    if events & select.EPOLLOUT:
                        self._flush(connection)
                    if not events & ~select.EPOLLOUT:
                        continue
                    answered = self._read(connection)
                except OSError:
                    self._replace(connection, time.perf_counter() < end)
                    continue
                if answered:
                    now = time.perf_counter()
                    if connection.status == 200 and begin <= now < end:
                        self._latencies.append(now - connection.began)
                    if now < end:
                        self._send_next(connection)
                    else:
                        self._idle += 1
            now = time.perf_counter()

    def _connect(self) -> _Connection:
        plain = socket.create_connection((self._host, self._port), timeout=_CONNECT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = self._tls.wrap_socket(plain, server_hostname=self._host)
        sock.setblocking(False)
        connection = _Connection(sock)
        self._connections[sock.fileno()] = connection
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _replace(self, connection: _Connection, go_on: bool) -> None:
        """A connection broke: count it, and put a new one in its place."""
        self._broken += 1
        descriptor = connection.sock.fileno()
        self._epoll.unregister(descriptor)
        del self._connections[descriptor]
        connection.sock.close()
        if go_on:
            self._send_next(self._connect())

    def _send_next(self, connection: _Connection) -> None:
        request = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        self._sent += 1
        connection.head, connection.missing = b"", 0
        connection.began = time.perf_counter()
        connection.out = memoryview(request)
        self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        """Send what is left; wait for room where there is none."""
        out, waits = connection.out, False
        try:
            while out:
                out = out[connection.sock.send(out) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            waits = True
        except OSError:
            # The read that follows finds the end and deals with it.
            out = out[:0]
        connection.out = out
        if waits != connection.waits:
            connection.waits = waits
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if waits else 0))

    def _read(self, connection: _Connection) -> bool:
        """Read what has come; True when that completes the answer. ConnectionError when the connection ended."""
        receive, buffer = connection.sock.recv_into, self._buffer
        try:
            while True:
                count = receive(buffer)
                if not count:
                    raise ConnectionResetError("the server closed the connection")
                if connection.head is None:
                    connection.missing -= count
                else:
                    self._take_head(connection, count)
                if connection.head is None and connection.missing <= 0:
                    return True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False

    def _take_head(self, connection: _Connection, count: int) -> None:
        data = (connection.head or b"") + self._buffer[:count]
        end = data.find(_HEAD_END)
        if end < 0:
            connection.head = data
            return
        head = data[:end].lower()
        connection.status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise ConnectionAbortedError("an answer without a length")
        length = head[at + 17 :].split(b"\r\n", 1)[0]
        connection.missing = int(length) - (len(data) - end - len(_HEAD_END))
        connection.head = None
        if connection.status != 200:
            self._refused += 1
            if not self._first_refusal:
                self._first_refusal = data[end + len(_HEAD_END) :][:300].decode("utf-8", "replace")
                self._first_refusal = f"{connection.status} {self._first_refusal}"


def read_requests(path: str) -> list[bytes]:
    """The requests of a file that bench.load wrote."""
    requests = []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while at < len(data):
            (size,) = LENGTH.unpack_from(data, at)
            at += LENGTH.size
            requests.append(data[at : at + size])
            at += size
    return requests


def main() -> int:
    die_with_parent(signal.SIGKILL, int(sys.argv[1]))
    order = json.loads(sys.stdin.read())
    try:
        result = Generator(order, read_requests(order["requests"])).run()
    except OSError as error:
        sys.stderr.write(f"{order['host']}:{order['port']}: {error}\n")
        return 1
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()
    # Thousands of sockets and requests are not worth tidying up one by one.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
