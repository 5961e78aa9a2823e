"""Frames as bytes."""

from __future__ import annotations

import pytest

from pgnode.xray.transport import frames
from pgnode.xray.transport.frames import Http2Error


def test_a_frame() -> None:
    assert frames.frame(frames.PING, frames.ACK, 3, b"12345678") == b"\0\0\x08\x06\x01\0\0\0\x03" + b"12345678"
    assert frames.frame(frames.DATA, 0, 1, bytes(0x10203))[:3] == b"\x01\x02\x03"


def test_settings() -> None:
    assert frames.settings_frame({}) == frames.frame(frames.SETTINGS, 0, 0)
    found = frames.settings_frame({frames.SETTINGS_ENABLE_PUSH: 0, frames.SETTINGS_MAX_FRAME_SIZE: 2**20})
    assert found[9:] == b"\0\x02\0\0\0\0" + b"\0\x05\0\x10\0\0"


def test_what_a_client_sends_first() -> None:
    usual = frames.opening()
    assert usual == frames.PREFACE + frames.settings_frame(
        {frames.SETTINGS_HEADER_TABLE_SIZE: 0, frames.SETTINGS_ENABLE_PUSH: 0}
    )
    wide = frames.opening(2**20)
    assert wide.endswith(frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.U32.pack(2**20 - frames.DEFAULT_WINDOW)))
    assert frames.SETTING.pack(frames.SETTINGS_INITIAL_WINDOW_SIZE, 2**20) in wide


def test_numbers() -> None:
    assert frames.read_u32(b"\0\0\1\0") == 256
    with pytest.raises(Http2Error) as caught:
        frames.read_u32(b"\0")
    assert caught.value.code == frames.FRAME_SIZE_ERROR


def test_padding() -> None:
    assert frames.without_padding(0, b"headers") == b"headers"
    assert frames.without_padding(frames.PADDED, b"\x02headers\0\0") == b"headers"
    for payload in (b"", b"\x03ab"):
        with pytest.raises(Http2Error) as caught:
            frames.without_padding(frames.PADDED, payload)
        assert caught.value.code == frames.PROTOCOL_ERROR
