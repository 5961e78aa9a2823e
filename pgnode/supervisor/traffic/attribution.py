"""Finds out whether bytes were moved by users who were not read. Pure.

With many users only those who are online are read. A user who came and went between two readings is not among them, but the
user's bytes went through an outbound, whose counters are read by name. Bytes of outbounds beyond those of the users who were
read are *unexplained*: somebody else moved them. Outbounds are compared, not inbounds, because an outbound to the free
internet counts the same payload as its user does, while an inbound counts what its protocol puts around it, too, and of some
protocols not all.

The two may differ for other reasons, and then a whole reading too many is made: connections without a user, an outbound that
goes through another one, a protocol around the payload. Where users move bytes that no outbound counts (what is blocked, what
the core answers itself), as many bytes of others may be overlooked in this reading; the next whole reading finds them.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Unexplained bytes since the last whole reading that do not cause another one.
TOLERATED_BYTES = 64 * 1024

#: Share of the bytes since the last reading that may be unexplained: counters go on while they are read.
TOLERATED_SHARE = 0.01


@dataclass(slots=True)
class ByteDelta:
    """Bytes each way."""

    up: int = 0
    down: int = 0

    def __iadd__(self, other: ByteDelta) -> ByteDelta:
        self.up += other.up
        self.down += other.down
        return self


class TrafficAttribution:
    """Compares what outbounds and users moved, of one core at a time, from one whole reading to the next."""

    def __init__(self) -> None:
        self._outbounds, self._users = ByteDelta(), ByteDelta()
        #: Bytes.
        self.unexplained = 0
        self._more = False

    def __repr__(self) -> str:
        return f"TrafficAttribution({self.unexplained} bytes unexplained{', and more' if self._more else ''})"

    def begin(self) -> None:
        """Begin anew after a whole reading."""
        self._outbounds, self._users = ByteDelta(), ByteDelta()
        self.unexplained, self._more = 0, False

    def outbounds_moved(self, moved: ByteDelta) -> None:
        """Take note of what outbounds moved since the last reading."""
        self._outbounds += moved

    def users_moved(self, moved: ByteDelta) -> None:
        """Take note of what the users moved who were read."""
        self._users += moved

    def users_left_out(self) -> None:
        """Take note that some who should have been read were not."""
        self._more = True

    def compare(self) -> None:
        """Compare both, after users and then outbounds were read."""
        out, users = self._outbounds, self._users
        for theirs, read in ((out.up, users.up), (out.down, users.down)):
            # Each reading is compared alone: a surplus in one does not make up for another.
            self.unexplained += max(0, theirs - read - int(theirs * TOLERATED_SHARE))
        self._outbounds, self._users = ByteDelta(), ByteDelta()

    @property
    def lacking(self) -> bool:
        """Whether a whole reading has to find somebody."""
        return self._more or self.unexplained > TOLERATED_BYTES
