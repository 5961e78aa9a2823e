"""Whether all that moved was moved by users who were read. Pure.

With many users only those are read who are online; whoever came and went between two readings is not among them. But what they
moved went through an outbound, whose counters are read by name: what outbounds moved beyond what the users moved who were read is
*unexplained*, and somebody else's. Outbounds are compared, not inbounds, because an outbound to the free internet counts the same
payload as its user does, while an inbound counts what its protocol puts around it, too, and of some protocols not all.

The two may differ for other reasons, and then a whole reading too many is made: connections without a user, an outbound that goes
through another one, a protocol around the payload. Where users move what no outbound counts (what is blocked, what the core
answers itself) that much of others' may be overlooked, in this reading; the next whole reading finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Unexplained bytes, since the last whole reading, that are not looked for yet.
TOLERATED_BYTES = 64 * 1024

#: Share of what moved since the last reading that is no sign of anybody: counters go on while they are read.
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
        """Begin anew: everything was read."""
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
        """Compare both: users were read, and outbounds after them."""
        out, users = self._outbounds, self._users
        for theirs, read in ((out.up, users.up), (out.down, users.down)):
            # What one reading has too little the next ones do not make up for: each is looked at alone.
            self.unexplained += max(0, theirs - read - int(theirs * TOLERATED_SHARE))
        self._outbounds, self._users = ByteDelta(), ByteDelta()

    @property
    def lacking(self) -> bool:
        """Whether somebody has to be looked for, by a whole reading."""
        return self._more or self.unexplained > TOLERATED_BYTES
