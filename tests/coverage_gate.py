"""Hold the unit tests' coverage against the promise: ``python -m tests.coverage_gate build/coverage.json``.

Every module is covered by unit tests, in this process, to 90 % of its lines. ``coverage_exceptions.toml`` names those that are
not, each with the reason. An exception that is not needed any more is an error, so that the list only shrinks.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXCEPTIONS = Path(__file__).with_name("coverage_exceptions.toml")

#: Lines of a module that are covered, in percent.
LEAST_PERCENT = 90.0

#: Random examples cover a line more or less: so far above the promise an exception is superfluous for certain.
MARGIN_PERCENT = 1.0


def is_generated(module: str) -> bool:
    """Whether nobody wrote it."""
    return "_pb2" in module


def exceptions() -> dict[str, str]:
    """Module -> why unit tests do not cover it."""
    table: dict[str, str] = tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8"))["exceptions"]
    return table


def complaints(covered: Mapping[str, float], excepted: Mapping[str, str]) -> list[str]:
    """Say what is not as promised.

    Args:
        covered: Module -> its covered lines in percent.
        excepted: Module -> reason.

    Returns:
        A sentence for each module that breaks the promise, or is excepted without need.
    """
    found = []
    for module, percent in sorted(covered.items()):
        if module not in excepted and percent < LEAST_PERCENT:
            found.append(f"{module}: unit tests cover {percent:.0f} % of its lines, not {LEAST_PERCENT:.0f} %")
        elif module in excepted and percent >= LEAST_PERCENT + MARGIN_PERCENT:
            found.append(f"{module}: unit tests cover {percent:.0f} % of its lines, it is no exception any more")
    found += [f"{module}: excepted, but there is no such module" for module in sorted(excepted.keys() - covered.keys())]
    return found


def main(report: Path) -> int:
    """Print what is wrong; the exit code."""
    files = json.loads(report.read_text(encoding="utf-8"))["files"]
    covered = {
        name: float(file["summary"]["percent_covered"]) for name, file in files.items() if not is_generated(name)
    }
    found = complaints(covered, exceptions())
    total = json.loads(report.read_text(encoding="utf-8"))["totals"]["percent_covered"]
    print(f"unit tests cover {total:.0f} % of all lines; {len(exceptions())} modules are excepted", *found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
