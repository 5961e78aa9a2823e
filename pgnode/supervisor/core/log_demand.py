"""Whether anybody watches the log, as workers say it again and again. Pure.

A worker that says nothing any more has gone. A supervisor that has just begun does not know yet who watches: until every worker
must have said so, somebody may.
"""

from __future__ import annotations

from pgnode.bus.log_batches import LEASE_SECONDS, Watch


class LogDemand:
    """Times are seconds on a clock that nobody sets.

    Args:
        now: When the supervisor began.
        lease_seconds: Seconds for which what a worker said holds.
    """

    def __init__(self, now: float, lease_seconds: float = LEASE_SECONDS) -> None:
        self._lease_seconds = lease_seconds
        self._unknown_until = now + lease_seconds
        #: Worker -> until when it watches, and the number of what it said last.
        self._workers: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"LogDemand({len(self._workers)} workers)"

    def said(self, worker: str, watch: Watch, now: float) -> bool:
        """Take what a worker says.

        Args:
            worker: Its name.
            watch: What it says.
            now: The time.

        Returns:
            Whether it is news; else something newer was known.
        """
        self._forget(now)
        if self._workers.get(worker, (0.0, -1))[1] >= watch.number:
            return False
        # One that watches no more is remembered for as long: what it said before may come later.
        self._workers[worker] = (now + self._lease_seconds if watch.on else now, watch.number)
        return True

    def watched(self, now: float) -> bool:
        """Return whether anybody is known to watch.

        Args:
            now: The time.

        Returns:
            Whether.
        """
        return any(until > now for until, _ in self._workers.values())

    def unknown(self, now: float) -> bool:
        """Return whether somebody may watch who has not said so yet.

        Args:
            now: The time.

        Returns:
            Whether.
        """
        return now < self._unknown_until

    def not_heard(self, now: float) -> None:
        """Note that the bus is away: nobody can say anything, and whoever watched does so still.

        Args:
            now: The time.
        """
        later = now + self._lease_seconds
        if now < self._unknown_until:
            self._unknown_until = later
        for worker, (until, number) in self._workers.items():
            if until > now:
                self._workers[worker] = (later, number)

    def _forget(self, now: float) -> None:
        gone = [worker for worker, (until, _) in self._workers.items() if until + self._lease_seconds < now]
        for worker in gone:
            del self._workers[worker]
