"""What a single setting may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgnode.settings import checks


@pytest.mark.parametrize(
    ("check", "value", "used"),
    [
        (checks.check_uuid, " {5783A3E7-E373-51CD-8642-C83782B807C5} ", "5783a3e7-e373-51cd-8642-c83782b807c5"),
        (checks.check_listen_address, "[::1]", "::1"),
        (checks.check_listen_address, " 127.0.0.1", "127.0.0.1"),
        (checks.check_redis_url, "unix:///run/redis.sock", "unix:///run/redis.sock"),
        (checks.check_web_url, "https://example.com/a/", "https://example.com/a"),
        (checks.check_command, "update --to 'the latest'", "update --to 'the latest'"),
        (checks.check_key_prefix, "node-1", "node-1"),
        (checks.check_metrics_key, "0123456789abcdef", "0123456789abcdef"),
        (checks.check_callers, "", ""),
        (
            checks.check_callers,
            " 203.0.113.7, [2001:DB8::]/32,,203.0.113.0/24 ",
            "203.0.113.7/32,2001:db8::/32,203.0.113.0/24",
        ),
        (checks.check_cert_names, "", ""),
        (
            checks.check_cert_names,
            " Node-1.example.com, 203.0.113.7,,2001:DB8::1,*.example.org",
            "node-1.example.com,203.0.113.7,2001:db8::1,*.example.org",
        ),
    ],
)
def test_good_values_come_back_as_they_are_used(check: Callable[[str], str], value: str, used: str) -> None:
    assert check(value) == used


@pytest.mark.parametrize(
    ("check", "value", "allowed"),
    [
        (checks.check_uuid, "x", "allowed is a UUID"),
        (checks.check_listen_address, "localhost", "allowed is an IPv4 or IPv6 address"),
        (checks.check_redis_url, "http://x", "allowed is redis://HOST:PORT/NUMBER"),
        *(
            (checks.check_cert_names, value, "separated by commas, and")
            for value in ("203.0.113.300", "a b", "-a", "a..b", "https://a", "fe80::1%eth0", "é.com", "a" * 64, "*")
        ),
        *(
            (checks.check_callers, value, f"and '{value}' is none")
            for value in ("203.0.113.300", "203.0.113.0/33", "panel.example.com", "10.0.0.0-10.0.0.9", "::1%eth0")
        ),
        (checks.check_callers, "203.0.113.7/24", "allowed is 203.0.113.0/24, or the address alone"),
        (checks.check_callers, ",".join(["::1"] * 257), "256 addresses and networks at most"),
        (checks.check_metrics_key, "short", "16 characters and more"),
        (checks.check_metrics_key, "\u00e9" * 20, "16 characters and more"),
        (checks.check_metrics_key, " 0123456789abcdef", "16 characters and more"),
        (checks.check_web_url, "https://a b", "https:// or http://"),
        (checks.check_command, "'", "No closing quotation"),
        (checks.check_command, "  ", "unset it"),
        (checks.check_existing_folder, Path("/etc/passwd"), "existing folder"),
        (checks.check_executable, Path("/etc/passwd"), "executable file"),
        (checks.check_key_prefix, "", "without blanks"),
        (checks.check_key_prefix, "a*", "wildcards"),
    ],
)
def test_bad_values_are_answered_with_what_is_allowed(check: Callable[[Any], Any], value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(allowed)):
        check(value)


def test_paths_that_exist_are_kept(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch(mode=0o755)
    assert checks.check_executable(program) == program
    assert checks.check_existing_folder(tmp_path) == tmp_path


def test_the_state_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert checks.default_state_dir() == Path("/x/pgnode")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert checks.default_state_dir() == Path.home() / ".local/state/pgnode"
