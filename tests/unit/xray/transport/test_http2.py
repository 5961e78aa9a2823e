"""The protocol machine of the pipelined client against a strict peer in memory: framing, flow control, frames, breaches."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.xray.transport import frames, outcome
from pgnode.xray.transport.frames import Http2Error, frame, settings_frame
from pgnode.xray.transport.http2 import Http2ClientConnection
from pgnode.xray.transport.outcome import Failure
from tests.unit.xray.transport.http2_peer import Peer

PATH = "/service/Method"


def _pass(machine: Http2ClientConnection[int], peer: Peer) -> None:
    """Bytes both ways until nobody has any."""
    while True:
        ours, theirs = machine.take_output(), peer.take_output()
        if not ours and not theirs:
            return
        peer.receive(ours)
        machine.receive(theirs)


def _connected(peer: Peer, **more: int) -> Http2ClientConnection[int]:
    machine: Http2ClientConnection[int] = Http2ClientConnection(PATH, **more)
    assert repr(machine).startswith("<Http2ClientConnection new"), "nothing is begun before the peer's SETTINGS"
    _pass(machine, peer)
    assert machine.can_begin
    assert peer.settings_acknowledged
    return machine


def test_calls_and_their_headers() -> None:
    peer = Peer()
    machine = _connected(peer)
    for number in range(3):
        machine.begin(number, b"x" * number)
    _pass(machine, peer)
    assert [call.message for call in peer.calls.values()] == [b"", b"x", b"xx"]
    for call in peer.calls.values():
        assert call.headers == {
            ":method": "POST",
            ":scheme": "http",
            ":path": PATH,
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
        }
    for stream_id in (3, 5, 1):
        peer.answer(stream_id)
    _pass(machine, peer)
    assert machine.finished == [(1, None), (2, None), (0, None)]
    assert machine.open_count == 0


def test_errors_are_told_apart() -> None:
    peer = Peer()
    machine = _connected(peer)
    for number in range(6):
        machine.begin(number, b"")
    _pass(machine, peer)
    peer.answer(1, 2, "proxy/vless: User%20a@x%C3%A4 already exists.")
    peer.reset(3, frames.CANCEL)
    peer.reset(5, frames.REFUSED_STREAM)
    peer.headers(7, [(":status", "503")], end=True)
    peer.headers(9, [(":status", "502")], end=False)
    peer.headers(9, [("grpc-status", "0")], end=True)
    peer.headers(11, [(":status", "200")], end=False)
    peer.send(frame(frames.DATA, frames.END_STREAM, 11))
    _pass(machine, peer)
    assert machine.refused == [2]
    assert machine.finished == [
        (0, Failure(2, "proxy/vless: User a@xä already exists.")),
        (1, Failure(outcome.GRPC_UNAVAILABLE, f"the call was reset (HTTP/2 error {frames.CANCEL})")),
        (3, Failure(outcome.GRPC_UNAVAILABLE, "an answer with HTTP status 503 and without a gRPC status")),
        (4, Failure(outcome.GRPC_UNKNOWN, "")),
        (5, Failure(outcome.GRPC_UNAVAILABLE, "an answer without a gRPC status")),
    ]


@given(
    sizes=st.lists(st.integers(0, 150_000), min_size=1, max_size=12),
    stream_window=st.sampled_from([1, 20_000, 65_535, 1_000_000]),
    frame_size=st.sampled_from([16_384, 100_000]),
    max_open=st.integers(1, 5),
    parts=st.integers(1, 3),
    pad=st.integers(0, 20),
    table=st.sampled_from([0, 100, 4096, 65536]),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=10),
    data=st.data(),
)
def test_any_sizes_any_windows_any_cuts(
    *,
    sizes: list[int],
    stream_window: int,
    frame_size: int,
    max_open: int,
    parts: int,
    pad: int,
    table: int,
    cuts: list[int],
    data: st.DataObject,
) -> None:
    if stream_window == 1:
        sizes = [size % 200 for size in sizes]
    peer = Peer(
        {
            frames.SETTINGS_INITIAL_WINDOW_SIZE: stream_window,
            frames.SETTINGS_MAX_FRAME_SIZE: frame_size,
            frames.SETTINGS_MAX_CONCURRENT_STREAMS: max_open,
            frames.SETTINGS_HEADER_TABLE_SIZE: table,
        }
    )
    machine = _connected(peer, max_open=3)
    waiting = list(enumerate(sizes))
    ended: dict[int, Failure | None] = {}
    expected: dict[int, Failure | None] = {}
    answered: set[int] = set()
    while len(ended) < len(sizes):
        while waiting and machine.can_begin:
            number, size = waiting.pop(0)
            machine.begin(number, number.to_bytes(1, "big") * size)
        assert machine.open_count <= min(3, max_open)
        _pass(machine, peer)
        ready = [key for key, call in peer.calls.items() if call.whole and key not in answered]
        assert ready, "nothing moves any more"
        key = data.draw(st.sampled_from(ready))
        answered.add(key)
        number = (key - 1) // 2
        assert peer.calls[key].message == number.to_bytes(1, "big") * sizes[number]
        refused = data.draw(st.booleans())
        peer.answer(key, 2 if refused else 0, f"user {number}" if refused else "", parts=parts, pad=pad)
        peer.send(frame(frames.PING, 0, 0, b"12345678"))
        peer.send(frame(0x77, 0xFF, key, b"a frame nobody knows"))
        expected[number] = Failure(2, f"user {number}") if refused else None
        answer = peer.take_output()
        for cut in cuts:
            machine.receive(answer[:cut])
            answer = answer[cut:]
        machine.receive(answer)
        ended.update(machine.finished)
        machine.finished.clear()
        _pass(machine, peer)
        assert set(peer.pings_answered) == {b"12345678"}
    assert ended == expected


def test_nothing_is_sent_beyond_the_windows() -> None:
    peer = Peer(generous=False)
    machine = _connected(peer)
    machine.begin(0, b"x" * 100_000)
    _pass(machine, peer)
    assert len(peer.calls[1].body) == 65_535
    assert not machine.can_begin, "the connection's window is used up"
    peer.grant(1, 10)
    _pass(machine, peer)
    assert len(peer.calls[1].body) == 65_535
    peer.grant(0, 40_000)
    _pass(machine, peer)
    assert len(peer.calls[1].body) == 65_545
    assert not machine.can_begin, "calls go one after the other where a stream is held up"
    # The window of streams grows for those that are open, too.
    peer.calls[1].window += 934_465
    peer.send(settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 1_000_000}))
    _pass(machine, peer)
    assert peer.calls[1].message == b"x" * 100_000
    assert machine.can_begin


def test_a_call_that_is_answered_before_it_was_sent_whole() -> None:
    peer = Peer(generous=False)
    machine = _connected(peer)
    machine.begin(0, b"x" * 100_000)
    _pass(machine, peer)
    peer.answer(1, 8, "too large")
    _pass(machine, peer)
    assert machine.finished == [(0, Failure(8, "too large"))]
    assert peer.calls[1].cancelled
    peer.grant(0, 70_000)
    _pass(machine, peer)
    assert len(peer.calls[1].body) == 65_535
    assert machine.can_begin


def test_what_was_received_is_given_back() -> None:
    peer = Peer()
    machine = _connected(peer)
    machine.begin(0, b"")
    _pass(machine, peer)
    peer.answer(1, size=60_000)
    _pass(machine, peer)
    assert machine.finished == [(0, None)]
    assert peer.given_back >= 60_000


def test_cancelled_calls() -> None:
    peer = Peer()
    machine = _connected(peer)
    for number in range(3):
        machine.begin(number, b"")
    machine.cancel({0, 2, 77})
    _pass(machine, peer)
    assert [call.cancelled for call in peer.calls.values()] == [True, False, True]
    for stream_id in (1, 3):
        peer.answer(stream_id, 2, f"late {stream_id}")
    _pass(machine, peer)
    assert machine.finished == [(1, Failure(2, "late 3"))]


def test_goodbye_tells_what_was_not_looked_at() -> None:
    peer = Peer()
    machine = _connected(peer)
    for number in range(3):
        machine.begin(number, b"")
    _pass(machine, peer)
    peer.say_goodbye(3)
    peer.answer(1)
    _pass(machine, peer)
    assert machine.draining
    assert not machine.can_begin
    assert machine.refused == [2]
    assert machine.finished == [(0, None)]
    assert machine.open_count == 1
    assert machine.take_open() == [1]


def test_stream_ids_run_out() -> None:
    machine = _connected(Peer(), last_stream_id=5)
    begun = 0
    while machine.can_begin:
        machine.begin(begun, b"")
        begun += 1
    assert begun == 3
    assert machine.draining


def test_another_table_size_later_ends_the_use_of_the_connection() -> None:
    peer = Peer()
    machine = _connected(peer)
    peer.send(settings_frame({frames.SETTINGS_HEADER_TABLE_SIZE: 0}))
    _pass(machine, peer)
    assert machine.draining


SETTINGS = settings_frame({})
BREACHES = {
    "large frame": (b"\x01\x00\x00\x00\x00\x00\x00\x00\x01", frames.FRAME_SIZE_ERROR),
    "stream never begun": (frame(frames.RST_STREAM, 0, 9, bytes(4)), frames.PROTOCOL_ERROR),
    "headers of a stream never begun": (frame(frames.HEADERS, 5, 9, b"\x88"), frames.PROTOCOL_ERROR),
    "data of a stream never begun": (frame(frames.DATA, 1, 9, b""), frames.PROTOCOL_ERROR),
    "a stream of the server's": (frame(frames.DATA, 0, 2, b"x"), frames.PROTOCOL_ERROR),
    "headers not continued": (
        frame(frames.HEADERS, 0, 1, b"\x88") + frame(frames.PING, 0, 0, bytes(8)),
        frames.PROTOCOL_ERROR,
    ),
    "continuation of nothing": (frame(frames.CONTINUATION, 4, 1, b"\x88"), frames.PROTOCOL_ERROR),
    "endless headers": (
        frame(frames.HEADERS, 0, 1, b"") + frame(frames.CONTINUATION, 0, 1, bytes(16_384)) * 5,
        frames.PROTOCOL_ERROR,
    ),
    "headers that are none": (frame(frames.HEADERS, 5, 1, b"\xff\xff\xff\xff\x0f"), frames.COMPRESSION_ERROR),
    "padding": (frame(frames.HEADERS, 0xD, 1, b"\x09\x88"), frames.PROTOCOL_ERROR),
    "short ping": (frame(frames.PING, 0, 0, b"1234"), frames.FRAME_SIZE_ERROR),
    "short goaway": (frame(frames.GOAWAY, 0, 0, b"1234"), frames.FRAME_SIZE_ERROR),
    "short reset": (frame(frames.RST_STREAM, 0, 1, b"12"), frames.FRAME_SIZE_ERROR),
    "cut settings": (frame(frames.SETTINGS, 0, 0, b"1234"), frames.FRAME_SIZE_ERROR),
    "frame size": (settings_frame({frames.SETTINGS_MAX_FRAME_SIZE: 100}), frames.PROTOCOL_ERROR),
    "stream window": (settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 2**31}), frames.FLOW_CONTROL_ERROR),
    "window of nothing": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)), frames.PROTOCOL_ERROR),
    "window too large": (
        frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
        frames.FLOW_CONTROL_ERROR,
    ),
    "push": (frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), frames.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breaches_of_the_protocol(name: str) -> None:
    data, code = BREACHES[name]
    machine: Http2ClientConnection[int] = Http2ClientConnection(PATH)
    machine.receive(SETTINGS)
    machine.begin(0, b"")
    with pytest.raises(Http2Error) as caught:
        machine.receive(data)
    assert caught.value.code == code


@given(st.binary(max_size=400))
def test_rubbish_breaks_nothing_but_the_connection(data: bytes) -> None:
    machine: Http2ClientConnection[int] = Http2ClientConnection(PATH)
    machine.receive(SETTINGS)
    machine.begin(0, b"")
    try:
        machine.receive(data)
    except Http2Error as error:
        assert error.code  # noqa: PT017 - any breach will do, and nothing but one
    assert machine.open_count + len(machine.finished) + len(machine.refused) == 1
