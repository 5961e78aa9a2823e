"""An answer whose delivery is booked. Whoever hands it to the caller has to say, once, whether it arrived.

Traffic that was read with ``reset`` counts as reported only when the caller has it; until :attr:`TrackedResponse.settle` is
called it is on loan. Over REST "arrived" means that the caller's kernel has acknowledged the last byte, over gRPC that the
call ended OK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

#: Called with whether the answer arrived. Returns at once; later calls do nothing.
Settle = Callable[[bool], None]


class TrackedResponse(NamedTuple):
    """The bytes of the response's message, and whom to tell what became of them."""

    body: bytes
    settle: Settle
