"""Large snapshots in memory that all workers of a host share, on the supervisor's side; without it each worker keeps a copy."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from pgnode.os_support.shared_memory import SharedBytes, share

log = structlog.get_logger(__name__)


class SnapshotMemory:
    """Holds the revisions that workers may look for: the one that was published last, and the one that is about to be.

    Args:
        put: Puts bytes where other processes can map them.
    """

    def __init__(self, put: Callable[[bytes], SharedBytes] = share) -> None:
        self._put = put
        self._held: dict[str, list[SharedBytes]] = {}
        #: Snapshots are shared. Once that has failed, they are not any more.
        self.works = True

    def __repr__(self) -> str:
        return f"SnapshotMemory({', '.join(self._held) or 'nothing'}{'' if self.works else ', given up'})"

    def put(self, name: str, body: bytes) -> SharedBytes | None:
        """Share a new revision.

        Args:
            name: The snapshot.
            body: Its body.

        Returns:
            The body as it is shared; None where it cannot be.
        """
        if not self.works:
            return None
        try:
            made = self._put(body)
        except OSError as error:
            self._give_up(error.strerror or str(error))
            return None
        held = self._held.setdefault(name, [])
        # The first is what is published, as far as is known. What lies between was never needed.
        for unneeded in held[1:]:
            unneeded.close()
        held[1:] = [made]
        return made

    def published(self) -> None:
        """Let go of revisions that are superseded: the bus has the newest ones."""
        for held in self._held.values():
            for superseded in held[:-1]:
                superseded.close()
            del held[:-1]

    def cannot_be_mapped(self, handle: str) -> bool:
        """Take note that a worker could not map what a handle names.

        Args:
            handle: The handle.

        Returns:
            Whether snapshots have to be given to workers in another way from now on; not for one that is superseded.
        """
        if not self.works or handle not in {held[-1].handle for held in self._held.values()}:
            return False
        self._give_up("a worker may not open the supervisor's files below /proc")
        return True

    def _give_up(self, reason: str) -> None:
        self.works = False
        log.warning(
            "large snapshots are not shared: each worker keeps a copy",
            error=reason,
            hint="let the supervisor make files in memory (memfd_create), and its workers read /proc/PID/fd",
        )
