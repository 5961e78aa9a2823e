"""Whether inbounds are counted: by the operator's setting, the panel's config, or since somebody asked for their statistics."""

from __future__ import annotations

from typing import Final, Literal

import structlog

from pgnode.store.changes import Journal
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.inbound_counters import InboundCounting, counts_inbounds

log = structlog.get_logger(__name__)

#: What is said of a core that does not count inbounds.
WAITING: Final = "counters of inbounds"

Choice = Literal["auto", "on", "off"]


class InboundStats:
    """Belongs to the supervisor's loop.

    Args:
        choice: The setting INBOUND_STATS.
        journal: Remembers that somebody asked.
    """

    def __init__(self, choice: Choice, journal: Journal) -> None:
        self._choice = choice
        self._journal = journal
        self._asked = False
        #: Whether the core that runs counts inbounds; None where that is not known (yet).
        self.counted: bool | None = None

    def __repr__(self) -> str:
        return (
            f"InboundStats({self._choice}, {'asked for' if self._asked else 'not asked for'}, counted: {self.counted})"
        )

    def core_found(self, *, counted: bool | None) -> None:
        """Note whether the core that runs counts inbounds; None while that is not known."""
        self.counted = counted

    def restore(self, *, asked: bool) -> None:
        """Take over from an earlier supervisor whether somebody asked."""
        self._asked = asked

    @property
    def counting(self) -> InboundCounting:
        """What decides for the next core."""
        if self._choice != "auto":
            return InboundCounting.ALWAYS if self._choice == "on" else InboundCounting.NEVER
        return InboundCounting.WHERE_SILENT if self._asked else InboundCounting.AS_CONFIGURED

    def ask(self) -> bool:
        """Note that somebody wants statistics of inbounds; return whether that is news, and to be stored."""
        if self._choice != "auto" or self._asked:
            return False
        self._asked = True
        self._journal.meta["inbounds_asked"] = 1
        if not self.counted:
            log.info("statistics of inbounds were asked for: the next core counts them, unless the config says no")
        return True

    def waiting(self, base: BaseConfig | None) -> str:
        """Say what of this waits for the next start of the core.

        Args:
            base: The config of the core that runs; None where none does.

        Returns:
            The words; "" for nothing, also where the config says that inbounds are not counted.
        """
        wanted = base is not None and self.counted is False and counts_inbounds(base, self.counting)
        return WAITING if wanted else ""
