"""What maintenance jobs need of the node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from pgnode.xray.config.document import BaseConfig
from pgnode.xray.process.base import Core


class MaintainedNode(Protocol):
    """The node as jobs see it: what runs, and how to exchange it."""

    @property
    def core_lock(self) -> asyncio.Lock:
        """Held by whoever starts, stops or changes the core."""

    @property
    def running_base(self) -> BaseConfig | None:
        """The config that runs, or is being brought back; None where nothing has to run."""

    @property
    def core_base(self) -> BaseConfig | None:
        """The config of the core process that is there, also of one that lingers; None where there is none."""

    async def exchange_core(
        self, change: Callable[[], Awaitable[None]], undo: Callable[[], Awaitable[None]], what: str
    ) -> bool:
        """End the core, do ``change``, and start it with all users; if it does not come up, ``undo`` and start again.

        Args:
            change: What to do while no core runs.
            undo: Takes it back.
            what: What is changed, for the log.

        Returns:
            Whether a core runs now; False where nothing has to run, and only ``change`` was done.

        Raises:
            StartFailedError: The change was taken back; the text ends with what runs now.
        """

    async def reset(self) -> None:
        """End the core and forget config, users and routing; the traffic stays."""


class SelectableCore(Protocol):
    """The core as jobs see it: which one the next start runs, and what a core says of a config."""

    @property
    def core(self) -> Core:
        """The core that the next start runs."""

    @property
    def known_version(self) -> str:
        """Its version when it was asked last."""

    async def version(self) -> str:
        """Ask the core for its version; raises StartFailedError when it cannot be run."""

    def select(self, core: Core) -> None:
        """Make ``core`` the one that the next start runs."""

    async def check(self, base: BaseConfig, other: Core | None = None) -> None:
        """Let a core check a config; raises StartFailedError when it refuses it."""
