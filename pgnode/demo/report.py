"""What the demo prints: steps, and claims that held or did not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

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
    held: int = 0
    failed: int = 0
    _begun_seconds: float = field(default_factory=time.monotonic)

    def step(self, title: str) -> None:
        """Begin a step."""
        self.console.print(f"\n[bold]{title}[/]")

    def check(self, ok: bool, sentence: str) -> None:
        """Print a claim, and count whether it held."""
        if ok:
            self.held += 1
        else:
            self.failed += 1
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
        elapsed = time.monotonic() - self._begun_seconds
        if self.failed:
            total = self.held + self.failed
            self.console.print(f"\n[bold red]{self.failed} of {total} checks failed[/] ({elapsed:.0f} s).")
            return 1
        self.console.print(f"\n[bold green]All {self.held} checks held[/] ({elapsed:.0f} s).")
        return 0
