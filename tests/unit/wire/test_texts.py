"""Texts of callers: limits, and how they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.wire.texts import (
    EMAIL_CHARACTERS_MAX,
    PATH_CHARACTERS_MAX,
    SHOWN_CHARACTERS,
    control_character,
    email_fault,
    name_shown,
    path_shown,
    shown,
)


@given(st.text(max_size=500))
def test_what_is_shown_is_short_and_on_one_line(text: str) -> None:
    assert shown(text).isprintable()
    # Each character may need an escape of ten.
    assert len(shown(text)) <= 10 * SHOWN_CHARACTERS + 3
    assert name_shown(text) == text or name_shown(text) == shown(text)


@given(st.text(max_size=500))
def test_a_path_is_shown_short_and_on_one_line(path: str) -> None:
    assert path_shown(path).isprintable()
    assert len(path_shown(path)) <= 10 * PATH_CHARACTERS_MAX + 3
    assert path_shown("/nowhere") == "/nowhere"


@pytest.mark.parametrize(
    ("email", "fault"),
    [
        ("", "is empty"),
        ("x" * EMAIL_CHARACTERS_MAX, None),
        ("x" * (EMAIL_CHARACTERS_MAX + 1), "has 257 characters, 256 are allowed"),
        ("a\nb", r"control character '\n'"),
        ("a\x00", r"control character '\x00'"),
        ("a\x85", r"control character '\x85'"),
        ("a\u2028", r"control character '\u2028'"),
        ("a>>>b", ">>>"),
        ("Zoë Ω 用户 🙂", None),
        ("a\u00a0b", None),
        ("a>>b", None),
    ],
)
def test_an_email_that_no_user_can_have(email: str, fault: str | None) -> None:
    found = email_fault(email)
    assert (found is None) if fault is None else (fault in (found or ""))


def test_control_characters_are_found() -> None:
    assert control_character("fine") is None
    assert control_character("a\u00a0b") is None
    assert control_character("a\tb\n") == "\t"
