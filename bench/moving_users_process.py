"""Many users' traffic in one process: ``python -m bench.moving_users_process <pid of the parent>``.

A client core would cost more than the node that is measured; so this speaks the little of VLESS that raw TCP needs, with one
epoll. It is the users and their target, too: a connection sends BLOCK_UP bytes through the node, and the target sends BLOCK_DOWN
back.

Lines of JSON come in on stdin, and one line goes out for each when it is done. The first is the order: ``port`` (the node's VLESS
inbound) and ``ids`` (a file with 16 bytes for each user). Then ``{"do": "move", "first": 0, "count": 10}``: each of these
users connects, moves a block each way and is gone; ``hold``: the same, and the connection stays; ``pulse``: every
held connection moves another block; ``release``: held connections end.

Users come from many addresses: there are not enough ports for 100,000 connections from one, and the core leaves 127.0.0.1 out
of its online lists. They break their connections off, so that no address and port has to wait for its end.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from pgnode.os_support.pdeath import die_with_parent

BLOCK_UP, BLOCK_DOWN = 1000, 3000
#: Connections under way at a time: more do not make the core faster.
IN_FLIGHT = 128
#: Addresses that users come from, and addresses of the target: the core's own connections need ports as well.
SOURCES = [f"127.0.0.{number}" for number in range(2, 250)]
TARGETS = [f"127.0.1.{number}" for number in range(1, 9)]
#: An order that takes longer has failed.
LIMIT_SECONDS = 120.0

#: VLESS: version 0, the id, no add-ons, the command TCP; then the port, an address of type IPv4. The answer is two bytes ahead.
_HEAD = struct.Struct(">B16sBBHB4s")
_TCP, _IPV4 = 1, 1
_ANSWER_HEAD = 2
_BREAK_OFF = struct.pack("ii", 1, 0)
_UP, _DOWN = bytes(BLOCK_UP), bytes(BLOCK_DOWN)
#: linux/in.h: a port is chosen when it is known where to.
_IP_BIND_ADDRESS_NO_PORT = 24


class MovingUsers:
    """All users and their target."""

    def __init__(self, port: int, ids: bytes) -> None:
        self._port = port
        self._ids = ids
        self._epoll = select.epoll()
        self._listening: dict[int, socket.socket] = {}
        #: Target's side: connection and bytes that have come of the block.
        self._served: dict[int, tuple[socket.socket, int]] = {}
        #: Users' side: connection and bytes that are missing of the answer.
        self._users: dict[int, tuple[socket.socket, int]] = {}
        self._held: list[socket.socket] = []
        self._target_port = 0
        for address in TARGETS:
            listening = socket.create_server((address, self._target_port), backlog=4096)
            listening.setblocking(False)
            self._target_port = listening.getsockname()[1]
            self._listening[listening.fileno()] = listening
            self._epoll.register(listening.fileno(), select.EPOLLIN)

    def move(self, first: int, count: int, *, hold: bool = False) -> int:
        """Users ``first`` and so on move a block each way; returns how many did not."""
        waiting = iter(range(first, first + count))
        failed = 0
        left = count
        end = time.monotonic() + LIMIT_SECONDS
        for user in waiting:
            self._connect(user)
            if len(self._users) >= IN_FLIGHT:
                break
        while left and time.monotonic() < end:
            for sock, answered in self._poll():
                left -= 1
                failed += not answered
                if answered and hold:
                    self._held.append(sock)
                else:
                    self._break_off(sock)
                user = next(waiting, -1)
                if user >= 0:
                    self._connect(user)
        return failed + left

    def pulse(self) -> int:
        """Every held connection moves another block; returns how many did not."""
        held, self._held = self._held, []
        for sock in held:
            self._users[sock.fileno()] = (sock, BLOCK_DOWN)
            sock.send(_UP)
        left = len(held)
        end = time.monotonic() + LIMIT_SECONDS
        while left and time.monotonic() < end:
            for sock, answered in self._poll():
                left -= 1
                if answered:
                    self._held.append(sock)
                else:
                    self._break_off(sock)
        return len(held) - len(self._held)

    def release(self) -> int:
        for sock in self._held:
            self._break_off(sock)
        self._held.clear()
        return 0

    def _connect(self, user: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((SOURCES[user % len(SOURCES)], 0))
        sock.connect_ex(("127.0.0.1", self._port))
        target = socket.inet_aton(TARGETS[user % len(TARGETS)])
        head = _HEAD.pack(0, self._ids[16 * user : 16 * user + 16], 0, _TCP, self._target_port, _IPV4, target)
        try:
            # On loopback a connection is there, or refused, when connect returns.
            sock.send(head + _UP)
        except OSError:
            sock.close()
            raise
        self._users[sock.fileno()] = (sock, _ANSWER_HEAD + BLOCK_DOWN)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _poll(self) -> list[tuple[socket.socket, bool]]:
        """Wait for something; returns the users that have their whole answer, or whose connection ended without."""
        done = []
        for descriptor, _ in self._epoll.poll(0.1):
            if descriptor in self._users:
                sock, missing = self._users[descriptor]
                try:
                    data = sock.recv(65536)
                except OSError:
                    data = b""
                missing -= len(data)
                if missing <= 0 or not data:
                    del self._users[descriptor]
                    done.append((sock, bool(data)))
                else:
                    self._users[descriptor] = (sock, missing)
            elif descriptor in self._served:
                self._serve(descriptor)
            elif descriptor in self._listening:
                self._accept(self._listening[descriptor])
            else:  # a held connection that ended
                self._epoll.unregister(descriptor)
        return done

    def _accept(self, listening: socket.socket) -> None:
        try:
            while True:
                sock, _ = listening.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK_OFF)
                self._served[sock.fileno()] = (sock, 0)
                self._epoll.register(sock.fileno(), select.EPOLLIN)
        except BlockingIOError:
            return

    def _serve(self, descriptor: int) -> None:
        sock, come = self._served[descriptor]
        try:
            data = sock.recv(65536)
            come += len(data)
            if come >= BLOCK_UP:
                sock.send(_DOWN)
                come -= BLOCK_UP
        except OSError:
            data = b""
        self._served[descriptor] = (sock, come)
        if not data:
            del self._served[descriptor]
            sock.close()

    def _break_off(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK_OFF)
        sock.close()


def main() -> int:
    die_with_parent(signal.SIGKILL, int(sys.argv[1]))
    order = json.loads(sys.stdin.readline())
    movers = MovingUsers(order["port"], Path(order["ids"]).read_bytes())
    for line in sys.stdin:
        wanted: dict[str, Any] = json.loads(line)
        begun = time.monotonic()
        if wanted["do"] in ("move", "hold"):
            failed = movers.move(wanted["first"], wanted["count"], hold=wanted["do"] == "hold")
        else:
            failed = {"pulse": movers.pulse, "release": movers.release}[wanted["do"]]()
        sys.stdout.write(json.dumps({"failed": failed, "seconds": time.monotonic() - begun}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
