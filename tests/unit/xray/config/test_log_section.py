"""What of a change of the log the node does by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.xray.config.log_section import LogSection, access_lines, is_access_line, without_ids

DEFAULT = LogSection.of(None)
LINE = b"2026/11/29 13:00:25.104547 [%s] core: something"
ACCESS = b"2026/11/29 13:00:25.104547 from 127.0.0.1:1 accepted tcp:example.com:443 [in -> out] email: a"


@pytest.mark.parametrize(
    ("running", "wanted", "waits"),
    [
        ({}, {}, ""),
        (None, {"loglevel": "warning"}, "lines about connections"),
        ({"loglevel": "warning"}, None, ""),
        ({"error": "none"}, {"error": ""}, "lines of the core itself"),
        ({"error": ""}, {"error": "none"}, ""),
        ({"loglevel": "warning"}, {"loglevel": "error"}, ""),
        ({"loglevel": "debug"}, {"loglevel": "None"}, ""),
        ({"loglevel": "warning"}, {"loglevel": "Debug"}, "level debug (the core runs with warning)"),
        ({"loglevel": "none"}, {}, "level warning (the core runs with none), lines about connections"),
        ({"access": "none"}, {"access": ""}, "lines about connections"),
        ({"access": ""}, {"access": "none"}, ""),
        ({}, {"dnsLog": True}, "other log options"),
        ({}, {"maskAddress": "half"}, "other log options"),
        ({"loglevel": "quux"}, {"loglevel": 5}, ""),
    ],
)
def test_what_waits_for_the_next_core(running: Any, wanted: Any, waits: str) -> None:
    assert LogSection.of(wanted).waits(LogSection.of(running)) == waits


@pytest.mark.parametrize(
    ("section", "passed"),
    [
        ({"loglevel": "debug"}, {"Debug", "Info", "Warning", "Error", "access"}),
        ({"loglevel": "info"}, {"Info", "Warning", "Error", "access"}),
        ({}, {"Warning", "Error", "access"}),
        ({"loglevel": "error"}, {"Error", "access"}),
        ({"access": "none"}, {"Warning", "Error"}),
        (None, {"Warning", "Error"}),
        ({"error": "none"}, {"access"}),
        ({"loglevel": "none"}, set()),
    ],
)
def test_which_lines_are_passed_on(section: Any, passed: set[str]) -> None:
    wanted = LogSection.of(section)
    found = {level for level in ("Debug", "Info", "Warning", "Error") if wanted.wants(LINE % level.encode())}
    assert found | ({"access"} if wanted.wants(ACCESS) else set()) == passed
    assert wanted.wants(b"panic: something")


@pytest.mark.parametrize(
    ("line", "is_access"),
    [
        (ACCESS, True),
        (b"2026/11/29 13:00:25.104547 from [2001:db8::7]:4711 accepted tcp:[::1]:443 [in >> out] email: a", True),
        (b"2026/11/29 13:00:25.104547 from DNS accepted udp:1.1.1.1:53", True),
        (b"2026/11/29 13:00:25.104547 localhost got answer: example.com -> [192.0.2.7] 5ms", True),
        (LINE % b"Warning", False),
        (b"2026/11/29 13:00:25.104547 [Info] [3625919] proxy/vless/inbound: received request for tcp:[::1]:443", False),
        (b"2026/11/29 13:00:25 [Debug] without a fraction", False),
        (b"panic: something", False),
        (b"goroutine 1 [running]:", False),
    ],
)
def test_which_lines_are_about_connections(line: bytes, is_access: bool) -> None:
    assert is_access_line(line) is is_access


@pytest.mark.parametrize("text", ["6e0a2249-a10a-5672-b647-544f9bb45868", "6E0A2249A10A5672B647544F9BB45868"])
def test_ids_of_those_who_are_not_let_in_are_hidden(text: str) -> None:
    line = (
        f"2026/11/29 10:00:00 from 127.0.0.1:1 rejected  proxy/vless/encoding: invalid request user id: {text}".encode()
    )
    assert without_ids(line).endswith(b"invalid request user id: (hidden)")
    assert without_ids(b"user id: none, x") == b"user id: none, x"


#: Lines of all kinds, and some whose hosts look like something else.
KINDS = [
    ACCESS,
    ACCESS + b" [Info]",
    ACCESS.replace(b"127.0.0.1", b"[::1]"),
    *(LINE % level for level in (b"Debug", b"Info", b"Warning", b"Error")),
    b"panic: something",
    b"[Warning] without a date",
]
BLOCKS = st.lists(st.sampled_from(KINDS), min_size=1, max_size=6)


@given(
    BLOCKS,
    st.sampled_from(["debug", "info", "warning", "error", "none"]),
    st.sampled_from(["", "none"]),
    st.sampled_from(["", "none"]),
)
def test_a_block_is_sieved_as_its_lines_would_be(lines: list[bytes], level: str, access: str, error: str) -> None:
    section = LogSection.of({"loglevel": level, "access": access, "error": error})
    wanted = [line for line in lines if section.wants(line)]
    assert section.sieve(b"\n".join(lines)) == b"\n".join(wanted)


@given(BLOCKS)
def test_lines_about_connections_are_told_from_others(lines: list[bytes]) -> None:
    access, others = access_lines(b"\n".join(lines))
    assert access == b"\n".join([line for line in lines if is_access_line(line)])
    assert others == b"\n".join([line for line in lines if not is_access_line(line)])
