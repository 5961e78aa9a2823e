"""Client of the core's HandlerService, as far as the users of one inbound go: added, removed, listed.

What the core does with users differs by protocol (Xray 26.10.10, measured), and callers have to know:

* Adding a known e-mail: VLESS, VMess, Trojan and Shadowsocks-2022 refuse it ("already exists", whatever the case of the
  letters); Shadowsocks takes it and then has the user **twice**; Hysteria knows users by their key, so a new key for the
  same e-mail leaves the old key valid. To change a user, remove first, then add.
* Removing an unknown e-mail is "not found", but Hysteria accepts it silently. Hysteria compares e-mails exactly, all
  others in lower case. Where an e-mail is there twice, one removal takes one.
* A Shadowsocks-2022 inbound that was configured without users is one for a single user; nobody can be added to it.
  A swap (:mod:`pgnode.xray.client.swap`) turns it into one for several, which the core offers for the aes methods only.
* An account of another protocol than the inbound's **ends the core** (a Go panic).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from google.protobuf.message import Message

from pgnode.wire import varint
from pgnode.wire.varint import SHORT, SHORT_MAX
from pgnode.xray.client.channel import CoreChannel, decode_answer
from pgnode.xray.client.errors import CoreApiError, from_failure
from pgnode.xray.proto import handler_command_pb2 as pb
from pgnode.xray.proto import user_pb2
from pgnode.xray.transport.pipelined import PipelinedGrpcClient

_SERVICE: Final = "/xray.app.proxyman.command.HandlerService/"
_ALTER: Final = _SERVICE + "AlterInbound"

#: So many operations are encoded before the first one is sent.
_ENCODED_MAX: Final = 256


@functools.lru_cache(maxsize=1024)
def _tag_field(tag: str) -> bytes:
    """Encode what every request for this inbound begins with."""
    return varint.field(1, tag.encode())


def _operation_head(kind: type[Message]) -> bytes:
    """Encode a TypedMessage of this kind up to the length of its value."""
    return varint.field(1, kind.DESCRIPTOR.full_name.encode()) + b"\x12"


_ADD_HEAD: Final = _operation_head(pb.AddUserOperation)
_REMOVE_HEAD: Final = _operation_head(pb.RemoveUserOperation)


class AlterOperation(NamedTuple):
    """One change to the users of an inbound: ``user`` (a serialized xray.common.protocol.User) is added; None removes."""

    tag: str
    email: str
    user: bytes | None = None

    @classmethod
    def add(cls, tag: str, user: bytes) -> AlterOperation:
        """Add the user; the e-mail is read from the message."""
        return cls(tag, user_pb2.User.FromString(user).email, user)

    @classmethod
    def remove(cls, tag: str, email: str) -> AlterOperation:
        """Remove the user of this e-mail."""
        return cls(tag, email)

    def request(self) -> bytes:
        """Encode the AlterInboundRequest."""
        # Spelled out, since this is done for every user in every inbound; a test holds it against the generated messages.
        if self.user is None:
            content, head = self.email.encode(), _REMOVE_HEAD
        else:
            content, head = self.user, _ADD_HEAD
        count = len(content)
        size = SHORT[count] if count < SHORT_MAX else varint.encode(count)
        length = count + len(size) + 1
        inner = SHORT[length] if length < SHORT_MAX else varint.encode(length)
        outer = len(head) + len(inner) + length
        return b"%b\x12%b%b%b\x0a%b%b" % (
            _tag_field(self.tag),
            SHORT[outer] if outer < SHORT_MAX else varint.encode(outer),
            head,
            inner,
            size,
            content,
        )


class UsersClient:
    """Users of the inbounds of one running core.

    Every ``deadline_seconds`` bounds the whole method. Every method may raise CoreApiError.
    """

    def __init__(self, channel: CoreChannel) -> None:
        self._channel = channel
        self._pipelined: PipelinedGrpcClient | None = None

    def __repr__(self) -> str:
        return f"<UsersClient {self._channel!r}>"

    async def aclose(self) -> None:
        """Close the pipelined connection; calls under way end as unavailable."""
        pipelined, self._pipelined = self._pipelined, None
        if pipelined is not None:
            await pipelined.aclose()

    async def add_user(self, tag: str, user_message: bytes, deadline_seconds: float) -> None:
        """Add a serialized xray.common.protocol.User. Its account must be of the inbound's protocol: see the module."""
        await self._alter(AlterOperation(tag, "", user_message), deadline_seconds)

    async def remove_user(self, tag: str, email: str, deadline_seconds: float) -> None:
        """Remove a user; live connections of the user go on."""
        await self._alter(AlterOperation(tag, email), deadline_seconds)

    async def _alter(self, operation: AlterOperation, deadline_seconds: float) -> None:
        await self._channel.call(_ALTER, operation.request(), deadline_seconds)

    async def alter_many(
        self, operations: Sequence[AlterOperation], deadline_seconds: float
    ) -> list[CoreApiError | None]:
        """Carry out all operations, many at a time.

        Operations on the same e-mail of the same inbound run one after the other, in the order given. What could not
        be begun in time is answered with a deadline error.

        Args:
            operations: Additions and removals.
            deadline_seconds: Seconds until what has no result is given up.

        Returns:
            The result of each: None, or its error, which is never raised.
        """
        followers = _followers(operations)
        if self._pipelined is None:
            self._pipelined = PipelinedGrpcClient(self._channel.socket_path, _ALTER)

        request: Callable[[int], bytes]
        if len(operations) <= _ENCODED_MAX:
            request = [operation.request() for operation in operations].__getitem__
        else:
            # Each when it is begun: the core has something to do meanwhile.
            def request(index: int) -> bytes:
                return operations[index].request()

        failures = await self._pipelined.run(len(operations), request, deadline_seconds, followers)
        if not any(failures):
            return [None] * len(failures)
        return [None if failure is None else from_failure(failure) for failure in failures]

    async def inbound_users(self, tag: str, deadline_seconds: float) -> list[user_pb2.User]:
        """List all users of an inbound, in no order."""
        answer = await self.inbound_users_answer(tag, deadline_seconds)
        return list(decode_answer(pb.GetInboundUserResponse, answer).users)

    async def inbound_users_answer(self, tag: str, deadline_seconds: float) -> bytes:
        """Do what :meth:`inbound_users` does, but return the answer as it came, a GetInboundUserResponse."""
        request = pb.GetInboundUserRequest(tag=tag).SerializeToString()
        return await self._channel.call(_SERVICE + "GetInboundUsers", request, deadline_seconds)

    async def inbound_user_count(self, tag: str, deadline_seconds: float) -> int:
        """Count the users of an inbound."""
        request = pb.GetInboundUserRequest(tag=tag).SerializeToString()
        answer = await self._channel.call(_SERVICE + "GetInboundUsersCount", request, deadline_seconds)
        return decode_answer(pb.GetInboundUsersCountResponse, answer).count


def _followers(operations: Sequence[AlterOperation]) -> dict[int, int]:
    """Find operations that have to wait for another one on the same user: number -> number of the next. Pure."""
    last: dict[tuple[str, str], int] = {}
    followers: dict[int, int] = {}
    for index, (tag, email, _) in enumerate(operations):
        name = (tag, email.lower())
        before = last.get(name)
        if before is not None:
            followers[before] = index
        last[name] = index
    return followers
