"""Snapshots on their way to the store: best effort, and what could not be written is written with the next ones.

A transaction that failed may have been done or not. What it held is written once more, else workers would serve
the revision before for as long as nothing changes, and after a restart that can be one from before the traffic.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.snapshots import POLLED, SnapshotWriter
from pgnode.supervisor.store import Store

log = structlog.get_logger(__name__)


class Publisher:
    """Belongs to the supervisor's loop; any of its tasks may publish."""

    def __init__(self, store: Store, snapshots: SnapshotWriter) -> None:
        self._store = store
        self._snapshots = snapshots
        #: Bodies of which it is not known whether the store has them.
        self._unwritten: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Publisher({len(self._unwritten)} unwritten)"

    async def publish(self, bodies: Mapping[str, bytes]) -> bool:
        """Write what is new of ``bodies``, and what is still unwritten; returns whether the store has it."""
        pipe = self._store.pipeline()
        put: dict[str, bytes] = {}
        for name, body in {**self._unwritten, **bodies}.items():
            held = self._snapshots.get(name)
            is_held = held is not None and held.body == body
            if name not in bodies and not is_held:  # something newer was written meanwhile
                del self._unwritten[name]
            elif not is_held or name == POLLED or name in self._unwritten:
                put[name] = body
                self._snapshots.put(pipe, name, body)
        if not put:
            return True
        self._unwritten |= put
        try:
            await pipe.execute()
        except BUS_ERRORS as error:
            log.debug("snapshots not written, will be done again", names=list(put), error=str(error))
            return False
        for name, body in put.items():
            if self._unwritten.get(name) is body:
                del self._unwritten[name]
        return True
