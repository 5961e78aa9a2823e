"""All forms in which the core writes where a connection comes from are read, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.sessions.access_lines import AccessLine, lines_of, name_in_log, needle_of, needles_of, read_line
from tests.unit.supervisor.sessions.lines import DATE, line


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (line("192.0.2.1:5678", "Alice"), AccessLine(7, ("192.0.2.1", 5678), "in", "alice", False, False)),
        (line("tcp:192.0.2.1:5678", "a b"), AccessLine(7, ("192.0.2.1", 5678), "in", "a b", False, True)),
        (line("[2001:db8::1]:5678", "a"), AccessLine(7, ("2001:db8::1", 5678), "in", "a", False, False)),
        (line("tcp:[::ffff:192.0.2.1]:5", "a"), AccessLine(7, ("192.0.2.1", 5), "in", "a", False, True)),
        (line("[fe80::1%eth0]:7", "a"), AccessLine(7, ("fe80::1", 7), "in", "a", False, False)),
        (line("udp:192.0.2.1:9", "a"), AccessLine(7, ("192.0.2.1", 9), "in", "a", True, True)),
        (line("192.0.2.1:0", "a"), AccessLine(7, ("192.0.2.1", 0), "in", "a", False, False)),
        (line("unix:@", "a"), AccessLine(7, ("", 0), "in", "a", False, True)),
        (line("@", "a"), AccessLine(7, ("", 0), "in", "a", False, False)),
        (line("", "a"), AccessLine(7, ("", 0), "in", "a", False, False)),
        (
            line("192.0.2.1:1", "a", tag="an in", route=" -> o"),
            AccessLine(7, ("192.0.2.1", 1), "an in", "a", False, False),
        ),
        (line("192.0.2.1:1", "a", route=" ==> o"), AccessLine(7, ("192.0.2.1", 1), "in", "a", False, False)),
        (line("192.0.2.1:1", "a", tag="out", route=""), AccessLine(7, ("192.0.2.1", 1), None, "a", False, False)),
        (line("192.0.2.1:1", "a", tag=""), AccessLine(7, ("192.0.2.1", 1), None, "a", False, False)),
        (line("192.0.2.1:1", "", verdict="rejected"), AccessLine(7, ("192.0.2.1", 1), "in", None, False, False)),
        (line("192.0.2.1:1", "a", verdict="rejected"), AccessLine(7, ("192.0.2.1", 1), "in", None, False, False)),
        (line("1.2.*.*:99999", "a"), AccessLine(7, ("", 0), "in", "a", False, False)),
    ],
)
def test_a_line_is_read(raw: bytes, expected: AccessLine) -> None:
    assert read_line(raw, 7) == expected


def test_a_target_with_brackets_is_not_a_route() -> None:
    raw = f"{DATE} from 192.0.2.1:1 accepted tcp:[2001:db8::1]:443 [in >> out] email: a".encode()
    found = read_line(raw)
    assert found is not None
    assert (found.tag, found.user) == ("in", "a")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        f"{DATE} [Warning] core: Xray 26.10.10 started".encode(),
        f"{DATE} [Info] x: from 192.0.2.1:1 accepted tcp:a:1 [in >> out] email: a".encode(),
        b"from 192.0.2.1:1 accepted tcp:a:1 [in >> out] email: a",
        f"{DATE} from 192.0.2.1:1 asked tcp:a:1".encode(),
    ],
)
def test_other_lines_are_passed_over(raw: bytes) -> None:
    assert read_line(raw) is None


def test_lines_of_a_block_have_their_numbers_and_those_of_the_node_are_none() -> None:
    ring = LogRing(100)
    ring.put(line("192.0.2.1:1", "a") + b"\nother\n" + line("192.0.2.1:2", "b"), 0.0, 3)
    ring.put(line("192.0.2.1:3", "c"), 9.0, 1, of_core=False)
    found = [one for block in ring.oldest_first() for one in lines_of(block)]
    assert [(one.number, one.user) for one in found] == [(1, "a"), (3, "b")]


@given(st.text(min_size=1), st.ip_addresses(), st.integers(1, 65535))
def test_what_a_block_is_searched_for_stands_in_the_line(email: str, address: object, port: int) -> None:
    text = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    raw = DATE.encode() + b" from " + text.encode() + b" accepted tcp:a:1 [in >> out]" + needle_of(email)
    found = read_line(raw)
    assert found is not None
    assert any(needle in raw.lower() for needle in needles_of(found.peer)) or "ffff" in str(address)
    assert found.user == name_in_log(email)
