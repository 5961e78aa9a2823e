"""Decides when waiting commands are sent: at once while there are few, in groups where callers ask together. Pure.

For single changes of users a round trip lasts until their answers; changes that come meanwhile become one entry of the
stream. The supervisor does changes in groups: two large groups cost less than ten small ones, and end no later.
"""

from __future__ import annotations

from math import ceil

from pgnode.bus.commands import Kind

#: So many single changes are sent although others of this worker have no answer.
GROUP_ENOUGH = 64

#: Callers who were just answered ask again at once, most of them. So their changes, and those that wait, are sent together: when
#: three quarters have come again, or when half the time has passed that the last group took. Else the quickest would go alone and
#: the others after it, in twice as many groups. One caller alone waits for nobody. The time is at least this for each of them and
#: once more, which is what a call costs all processes together.
TOGETHER_SECONDS_EACH = 0.00025
TOGETHER_SECONDS_MAX = 0.01
TURN_SHARE = 0.5

#: After so many waits in which nobody came there are none for so many groups.
VAIN_MAX = 3
VAIN_PAUSE = 12


class Gathering:
    """Decides when to send. Told of what is queued, sent and answered; keeps no clock.

    Attributes:
        under_way: Single changes that were sent and have no answer.
    """

    def __init__(self) -> None:
        self.under_way = 0
        #: Those of them that got their answer since the last group was sent.
        self._answered = 0
        #: So many single changes are waited for, unless it takes too long for them to come.
        self._awaited = 0
        #: Something else than single changes waits to be sent.
        self._urgent = False
        #: How many came since others are waited for; waits in which nobody did, one after the other; groups without a wait.
        self._came = 0
        self._in_vain = 0
        self._pause = 0

    def __repr__(self) -> str:
        return f"Gathering({self.under_way} under way, {self._awaited} awaited)"

    def queued(self, kind: Kind, waiting: int) -> bool:
        """Note that a command waits to be sent.

        Args:
            kind: What it asks for.
            waiting: How many commands wait, this one among them.

        Returns:
            What :meth:`may_send` returns.
        """
        if kind is not Kind.SYNC_USER:
            self._urgent = True
        elif self._awaited:
            self._came += 1
        # Not by a call of that: this is asked for every change.
        return self._urgent or waiting >= GROUP_ENOUGH or (not self.under_way and waiting >= self._awaited)

    def may_send(self, waiting: int) -> bool:
        """Return whether what waits is to be sent now.

        Args:
            waiting: How many commands wait.

        Returns:
            Whether there is a reason to send.
        """
        return self._urgent or waiting >= GROUP_ENOUGH or (waiting >= max(1, self._awaited) and not self.under_way)

    def begin_group(self) -> None:
        """Note that what waits is being sent: whoever was waited for need not be any more."""
        if self._came:
            self._in_vain = 0
        self._urgent, self._answered, self._awaited, self._came = False, 0, 0, 0

    def sent(self, singles: int) -> None:
        """Note that so many single changes were sent; :meth:`ended` is to be told of the end of each."""
        self.under_way += singles

    def ended(self, waiting: int, turn_seconds: float) -> float:
        """Note that a single change has its answer, or nobody waits for it any more.

        Args:
            waiting: How many commands wait to be sent.
            turn_seconds: How long ago a group was sent last.

        Returns:
            Seconds after which :meth:`patience_over` is to be called, unless a group is begun before; 0: not at all.
        """
        self.under_way -= 1
        self._answered += 1
        if self.under_way:
            return 0.0
        answered, self._answered = self._answered, 0
        if answered + waiting < 2 or self._awaited:
            return 0.0
        if self._pause:
            self._pause -= 1
            return 0.0
        self._awaited = min(GROUP_ENOUGH, waiting + ceil(answered * 3 / 4))
        least = (answered + 1) * TOGETHER_SECONDS_EACH
        return min(max(least, turn_seconds * TURN_SHARE), TOGETHER_SECONDS_MAX)

    def unsent(self) -> None:
        """Note that a single change has to be sent once more: it was lost, or could not be sent."""
        self.under_way -= 1

    def patience_over(self) -> None:
        """Note that nobody is waited for any more."""
        self._in_vain = 0 if self._came else self._in_vain + 1
        if self._in_vain >= VAIN_MAX:
            self._in_vain, self._pause = 0, VAIN_PAUSE
        self._awaited = self._came = 0
