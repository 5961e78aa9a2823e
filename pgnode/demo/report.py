"""What the demo prints: steps, and claims that held or did not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape


def mark(ok: bool) -> str:
    """✓ or ✗."""
    return "[green]✓[/]" if ok else "[bold red]✗[/]"


@dataclass
class Report:
    """The checks of one run, as they are printed.

    Args:
        console: Where it is printed.
    """

    console: Console
    #: Whether each claim held, and the claim.
    checks: list[tuple[bool, str]] = field(default_factory=list)
    _begun_seconds: float = field(default_factory=time.monotonic)

    def step(self, title: str) -> None:
        """Begin a step."""
        self.console.print(f"\n[bold]{title}[/]")

    def check(self, ok: bool, sentence: str) -> None:
        """Print a claim, and count whether it held."""
        self.checks.append((ok, sentence))
        self.console.print(f"  {mark(ok)} {escape(sentence)}", soft_wrap=True)

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of a log."""
        for line in lines:
            self.console.print(f"  [dim]{escape(line)}[/]", soft_wrap=True)

    def end(self) -> int:
        """Print the sum.

        Returns:
            The exit status: 0 when every check held.
        """
        elapsed, total, failed = self._elapsed_seconds, len(self.checks), self.failed
        if failed:
            self.console.print(f"\n[bold red]{failed} of {total} checks failed[/] ({elapsed:.0f} s).")
            return 1
        self.console.print(f"\n[bold green]All {total} checks held[/] ({elapsed:.0f} s).")
        return 0

    @property
    def failed(self) -> int:
        """How many claims did not hold."""
        return sum(not ok for ok, _ in self.checks)

    @property
    def _elapsed_seconds(self) -> float:
        return time.monotonic() - self._begun_seconds

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {
            "held": len(self.checks) - self.failed,
            "failed": self.failed,
            "seconds": round(self._elapsed_seconds, 1),
            "checks": [{"held": ok, "what": sentence} for ok, sentence in self.checks],
        }
