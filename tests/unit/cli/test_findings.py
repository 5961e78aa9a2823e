"""What checks found, on the screen and for programs."""

from __future__ import annotations

from pgnode.cli.findings import fail, finding_rows, findings_json, ok, summary, warn
from pgnode.cli.rows import Row, Tone

FOUND = [ok("a"), warn("b", "mend b"), fail("c"), fail("d", "mend d")]


def test_each_is_said_with_what_to_do() -> None:
    assert list(finding_rows(FOUND)) == [
        Row("ok", "a", Tone.GOOD),
        Row("warn", "b", Tone.WARN),
        Row("", "do: mend b"),
        Row("FAIL", "c", Tone.BAD),
        Row("FAIL", "d", Tone.BAD),
        Row("", "do: mend d"),
    ]


def test_failures_count() -> None:
    assert summary(FOUND) == ("1 ok, 1 warning, 2 failures", 4)
    assert summary(FOUND[:2]) == ("1 ok, 1 warning, 0 failures", 0)
    assert findings_json(FOUND[1:2]) == [{"level": "warn", "text": "b", "do": "mend b"}]
