"""What handlers return: bytes, now or later, or a response whose delivery is tracked. Pure.

Traffic that was read with ``reset`` counts as reported only when the caller has it; until then it is on loan. Whoever hands a
:class:`TrackedResponse` to the caller calls :attr:`TrackedResponse.settle` once. Over REST an answer has arrived when the
caller's kernel has acknowledged the last byte, over gRPC when the call ended OK.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from pgnode.bus.indexed import Body

#: Called with whether the answer arrived. Returns at once; later calls do nothing.
Settle = Callable[[bool], None]


class TrackedResponse(NamedTuple):
    """The bytes of the response's message, and whom to tell what became of them."""

    body: bytes
    settle: Settle


#: The bytes of the response's message.
Answer = bytes | Awaitable[bytes]
#: Takes the bytes of the request's message.
Handler = Callable[[bytes], Answer]

#: The same of a method that is ``tracked`` in the table; a large answer may be shared memory.
TrackedAnswer = Body | Awaitable[Body | TrackedResponse]
TrackedHandler = Callable[[bytes], TrackedAnswer]
