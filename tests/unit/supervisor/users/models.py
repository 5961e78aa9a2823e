"""A model of the users in a core, as the real one keeps them: by e-mail, and by credential for whoever connects."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from pgnode.supervisor.users.core_users import Outcome
from pgnode.supervisor.users.planning import Change, InboundPlan
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import canonical_id
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.proto import user_pb2, vless_pb2

VLESS = InboundSpec(tag="vless", protocol="vless", managed=True)
TROJAN = InboundSpec(tag="trojan", protocol="trojan", managed=True)
INBOUNDS = {"vless": VLESS, "trojan": TROJAN}


def vless_user(name: str, number: int, tags: Sequence[str] = ("vless",)) -> pb.User:
    """A user whose VLESS id is a number."""
    made = pb.User(email=name, inbounds=tags)
    made.proxies.vless.id = str(uuid.UUID(int=number + 1))
    made.proxies.trojan.password = f"key {number}"
    return made


class CredentialCore:
    """One VLESS inbound: a removal forgets the credential that the user had, whoever has it by then.

    ``shuffle`` puts calls in the order in which the core does them, where that is open; ``look_up`` makes of a secret by what the
    core looks a user up.
    """

    def __init__(
        self,
        shuffle: Callable[[Sequence[Change]], Sequence[Change]] = list,
        look_up: Callable[[str], str] = lambda secret: secret,
    ) -> None:
        #: E-mail -> credential.
        self.users: dict[str, str] = {}
        #: Credential -> e-mail: who gets in.
        self.owners: dict[str, str] = {}
        self.there = True
        self.calls = 0
        #: E-mails whose calls the core does not answer, or refuses.
        self.silent_about: set[str] = set()
        self.refuses: set[str] = set()
        self._shuffle = shuffle
        self._look_up = look_up

    @property
    def numbers(self) -> dict[str, int]:
        """E-mail -> number of the id with which that user gets in."""
        return {email: int(uuid.UUID(credential)) - 1 for credential, email in self.owners.items()}

    async def prepare_swap(self, tag: str) -> None:
        pass

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        outcome = Outcome()
        changes = [change for plan in plans for change in plan.changes]
        if chained:
            for change in self._shuffle(changes):
                self._remove(change, outcome)
                self._add(change, outcome)
        else:
            for change in self._shuffle(changes):
                self._remove(change, outcome)
            for change in self._shuffle(changes):
                self._add(change, outcome)
        return outcome

    def _remove(self, change: Change, outcome: Outcome) -> None:
        if change.old_email is None:
            return
        self.calls += 1
        if change.old_email in self.silent_about:
            outcome.unanswered.add(change.key)
            outcome.error = "no answer"
        elif (credential := self.users.pop(change.old_email, None)) is not None:
            self.owners.pop(self._look_up(credential), None)

    def _add(self, change: Change, outcome: Outcome) -> None:
        if change.new is None or change.new_email is None or change.key in outcome.unanswered:
            return
        self.calls += 1
        if change.new_email in self.silent_about:
            outcome.unanswered.add(change.key)
            outcome.error = "no answer"
        elif change.new_email in self.refuses:
            outcome.refused[change.key] = "the core said no"
        else:
            assert change.new_email not in self.users, "added without being removed first"
            self.users[change.new_email] = change.new.secret
            self.owners[self._look_up(change.new.secret)] = change.new_email

    async def swap(self, _tag: str, messages: Sequence[bytes], _before: object) -> int | None:
        self.calls += 2
        users = [user_pb2.User.FromString(message) for message in messages]
        # The secret is field 1 of every account, and an id may come without its dashes.
        ids = {user.email: vless_pb2.Account.FromString(user.account.value).id for user in users}
        self.restart({email: canonical_id(text) or text for email, text in ids.items()})
        return 0

    def restart(self, users: Mapping[str, str]) -> None:
        """Begin anew with these users, by e-mail."""
        self.users = dict(users)
        self.owners = {self._look_up(credential): email for email, credential in users.items()}
