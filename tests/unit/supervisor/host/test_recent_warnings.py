"""The node's last warnings."""

from __future__ import annotations

from pgnode.supervisor.host.recent_warnings import RecentWarnings, Warned


def test_the_same_warning_counts_once_and_is_the_newest() -> None:
    moments = iter([1.0, 2.0, 3.0])
    warnings = RecentWarnings(lambda: next(moments))
    warnings.note("warning", "no room")
    warnings.note("error", "no room")
    warnings.note("warning", "no\n  room")
    assert warnings.last() == [Warned(2.0, "error", "no room"), Warned(3.0, "warning", "no room", 2)]
    assert warnings.last(1) == [Warned(3.0, "warning", "no room", 2)]
    assert warnings.last(0) == []
    assert repr(warnings) == "RecentWarnings(2)"


def test_they_are_bounded_and_printable() -> None:
    warnings = RecentWarnings(lambda: 0.0, kept=2)
    for number in range(5):
        warnings.note("warning", f"{number}\x1b[2J" + "x" * 5_000)
    assert len(warnings.last()) == 2
    assert all(warned.text.isprintable() and len(warned.text) < 500 for warned in warnings.last())
