"""Decides when waiting commands are sent: at once while there are few, in groups where callers ask together. Pure.

For single changes of users a round trip lasts until their answers; changes that come meanwhile become one entry of the
stream. The supervisor does changes in groups: two large groups cost less than ten small ones, and end no later.
"""

from __future__ import annotations

from pgnode.bus.commands import Kind

#: So many single changes are sent although others of this worker have no answer.
GROUP_ENOUGH = 64

#: Where so many callers were answered together, most of them ask again at once. Their next changes go together, when three
#: quarters have come, or after this time for each of them, which is what a call costs all processes together; otherwise the
#: quickest would go alone and the others after it, in twice as many groups. Fewer callers never wait for each other.
TOGETHER_MIN = 4
TOGETHER_SECONDS_EACH = 0.00025
TOGETHER_SECONDS_MAX = 0.01


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
        self._urgent, self._answered, self._awaited = False, 0, 0

    def sent(self, singles: int) -> None:
        """Note that so many single changes were sent; :meth:`ended` is to be told of the end of each."""
        self.under_way += singles

    def ended(self, waiting: int) -> float:
        """Note that a single change has its answer, or nobody waits for it any more.

        Args:
            waiting: How many commands wait to be sent.

        Returns:
            Seconds after which :meth:`patience_over` is to be called, unless a group is begun before; 0: not at all.
        """
        self.under_way -= 1
        self._answered += 1
        if self.under_way:
            return 0.0
        answered, self._answered = self._answered, 0
        if answered < TOGETHER_MIN or self._awaited:
            return 0.0
        self._awaited = min(GROUP_ENOUGH, waiting + answered * 3 // 4)
        return min(answered * TOGETHER_SECONDS_EACH, TOGETHER_SECONDS_MAX)

    def unsent(self) -> None:
        """Note that a single change has to be sent once more: it was lost, or could not be sent."""
        self.under_way -= 1

    def patience_over(self) -> None:
        """Note that nobody is waited for any more."""
        self._awaited = 0
