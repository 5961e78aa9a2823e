"""Calls of any method on one connection: their paths, their answers, and how much may come at once."""

from __future__ import annotations

import struct

import pytest

from pgnode.xray.transport import frames
from pgnode.xray.transport.answering import WINDOW_BYTES, AnsweringConnection
from pgnode.xray.transport.frames import frame
from tests.unit.xray.transport.http2_peer import Peer

TABLES = [{}, {frames.SETTINGS_HEADER_TABLE_SIZE: 0}]


class Caller:
    """A machine, its peer, and what came for each call; a call is named by its path."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.came: dict[str, bytearray] = {}
        self.machine: AnsweringConnection[str] = AnsweringConnection(lambda path: path, self.take)
        self.settle()

    def take(self, call: str, data: bytes) -> None:
        self.came.setdefault(call, bytearray()).extend(data)

    def settle(self) -> None:
        """Bytes both ways until nobody has any."""
        while True:
            ours, theirs = self.machine.take_output(), self.peer.take_output()
            if not ours and not theirs:
                return
            self.peer.receive(ours)
            self.machine.receive(theirs)


@pytest.mark.parametrize("settings", TABLES)
def test_each_call_has_its_own_path(settings: dict[int, int]) -> None:
    caller = Caller(Peer(settings))
    paths = ["/service/One", "/service/Two", "/service/One", "/service/Two"]
    for path in paths:
        caller.machine.begin(path, path.encode())
    caller.settle()
    assert [call.headers[":path"] for call in caller.peer.calls.values()] == paths
    assert [call.message for call in caller.peer.calls.values()] == [path.encode() for path in paths]


def test_answers_come_as_they_are_and_not_to_others() -> None:
    caller = Caller(Peer())
    for path in ("/small", "/large", "/none"):
        caller.machine.begin(path, b"")
    caller.settle()
    caller.peer.answer(1, size=3)
    caller.peer.answer(3, size=100_000)
    caller.peer.answer(5, status=2, text="no")
    caller.settle()
    assert caller.came == {
        "/small": struct.pack(">BI", 0, 3) + bytes(3),
        "/large": struct.pack(">BI", 0, 100_000) + bytes(100_000),
    }
    assert [call for call, failure in caller.machine.take_finished() if failure is None] == ["/small", "/large"]


def test_padding_is_no_part_of_an_answer() -> None:
    caller = Caller(Peer())
    caller.machine.begin("/padded", b"")
    caller.settle()
    caller.peer.send(frame(frames.DATA, frames.PADDED, 1, b"\x02what\0\0"))
    caller.settle()
    assert caller.came == {"/padded": b"what"}


def test_nothing_comes_for_a_call_that_was_given_up() -> None:
    caller = Caller(Peer())
    caller.machine.begin("/gone", b"")
    caller.settle()
    caller.machine.cancel({"/gone"})
    caller.peer.answer(1, size=9)
    caller.settle()
    assert (caller.came, caller.machine.take_finished()) == ({}, [])
    assert caller.peer.calls[1].cancelled


def test_the_peer_may_send_much_before_it_hears_of_us() -> None:
    peer = Peer()
    caller = Caller(peer)
    given_at_first = peer.given_back
    assert given_at_first == WINDOW_BYTES - frames.DEFAULT_WINDOW
    caller.machine.begin("/large", b"")
    caller.settle()
    peer.answer(1, size=3 * WINDOW_BYTES)
    caller.settle()
    assert peer.given_back - given_at_first > 2 * WINDOW_BYTES, "what was taken may be sent again"
