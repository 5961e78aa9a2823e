"""What a check found: well, a warning, or a failure, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pgnode.cli.rows import Row, Tone
from pgnode.cli.texts import count
from pgnode.cli.verdict import NOT_WELL, WELL

#: How bad it is.
Level = Literal["ok", "warn", "fail"]

_TONES: dict[str, Tone] = {"ok": Tone.GOOD, "warn": Tone.WARN, "fail": Tone.BAD}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    text: str
    #: What to do; "" where nothing has to be done.
    do: str = ""


def ok(text: str) -> Finding:
    """Say that something is well."""
    return Finding("ok", text)


def warn(text: str, do: str = "") -> Finding:
    """Say that something may become a trouble."""
    return Finding("warn", text, do)


def fail(text: str, do: str = "") -> Finding:
    """Say that something is wrong."""
    return Finding("fail", text, do)


def finding_rows(findings: Iterable[Finding]) -> Iterator[Row]:
    """Yield the lines that say it."""
    for found in findings:
        label = found.level.upper() if found.level == "fail" else found.level
        yield Row(label, found.text, _TONES[found.level])
        if found.do:
            yield Row("", f"do: {found.do}")


def summary(findings: Iterable[Finding]) -> tuple[str, int]:
    """Count.

    Args:
        findings: What was found.

    Returns:
        A line that says how many there are of each, and the exit code.
    """
    levels = [found.level for found in findings]
    failures = levels.count("fail")
    text = f"{levels.count('ok')} ok, {count(levels.count('warn'), 'warning')}, {count(failures, 'failure')}"
    return text, NOT_WELL if failures else WELL


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return it for programs."""
    return [asdict(found) for found in findings]
