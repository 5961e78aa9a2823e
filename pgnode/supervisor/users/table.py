"""The desired users and what of them the core has. No I/O, no clock.

A user is kept as the bytes of its ``User`` message, under its e-mail in lower case, as the core compares them. What
accounts it has in which inbound follows from these bytes and the inbounds, so nothing is kept per inbound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pgnode.store.changes import Journal
from pgnode.supervisor.users.swap_policy import Change, InboundPlan
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import Account, UnusableAccountError, accounts_of, canonical_id
from pgnode.xray.config.document import InboundSpec

#: A user's message -> its e-mail, and its accounts by tag.
Looked = Mapping[bytes, tuple[str, dict[str, Account]]]
NOBODY_LOOKED: Final[Looked] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A user that cannot be applied, and why."""

    email: str
    cause: str

    def __str__(self) -> str:
        return f"{self.email or '(empty e-mail)'}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be altered for some users."""

    inbounds: list[InboundPlan]
    #: The users.
    keys: list[str]
    #: A secret goes from one user to another: all removals come before all additions.
    moves: bool


class UserTable:
    """Desired users and applied users. Changes of the desired ones go to the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._desired: dict[str, bytes] = {}
        self._applied: dict[str, bytes] = {}
        #: Users of whom the core may have something else than ``_applied`` says: a call about them failed.
        self._uncertain: set[str] = set()
        #: Users who are being brought to what is desired by a long application (pgnode.supervisor.users.rollout), which has
        #: not come to them, or not in all inbounds. For everybody else they are uncertain.
        self.pending: set[str] = set()
        #: Hash of a secret that the core has -> the pending or uncertain user who has it there. Where somebody else gets it, that
        #: one has to be done first: the core forgets a secret with whoever had it, also when another user has it by then.
        self._givers: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._desired)

    def __repr__(self) -> str:
        return (
            f"UserTable({len(self._desired)} desired, {len(self._applied)} applied, {len(self._uncertain)} uncertain)"
        )

    def get(self, key: str) -> bytes | None:
        return self._desired.get(key)

    def applied(self, key: str) -> bytes | None:
        """What the core has of this user, where that is certain."""
        return None if key in self._uncertain or key in self.pending else self._applied.get(key)

    def before(self, key: str) -> bytes | None:
        """What the core had of this user before what is being done now, where that is certain."""
        return None if key in self._uncertain else self._applied.get(key)

    @property
    def applied_count(self) -> int:
        """Users that the core has, as desired or as they were before."""
        return len(self._applied) - len(self._applied.keys() & self._uncertain)

    def keys(self) -> set[str]:
        return set(self._desired)

    def items(self) -> Iterable[tuple[str, bytes]]:
        return self._desired.items()

    @property
    def desired(self) -> Mapping[str, bytes]:
        """Key -> ``User`` message; a view."""
        return MappingProxyType(self._desired)

    def restore(self, stored: Mapping[str, bytes]) -> None:
        """Take over what the store holds."""
        self._desired = dict(stored)

    def return_to(self, desired: Mapping[str, bytes]) -> None:
        """The desired users as they were before a start that failed; no core has any, and what differs is to be stored."""
        before = self._desired
        for key in before.keys() | desired.keys():
            if before.get(key) != desired.get(key):
                self._journal.users[key] = desired.get(key)
        self._desired = dict(desired)
        self._applied.clear()
        self._uncertain.clear()
        self.pending.clear()
        self._givers.clear()

    def put(self, key: str, raw: bytes | None) -> bool:
        """Make ``raw`` the desired user; None removes it. Returns whether that changed anything."""
        if self._desired.get(key) == raw:
            return False
        if raw is None:
            del self._desired[key]
        else:
            self._desired[key] = raw
        self._journal.users[key] = raw
        return True

    def differing(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` that the core has differently, or perhaps so."""
        desired, applied = self._desired, self._applied
        doubtful = self._uncertain | self.pending if self.pending else self._uncertain
        return [key for key in keys if desired.get(key) != applied.get(key) or key in doubtful]

    def differing_all(self) -> list[str]:
        """:meth:`differing` of everybody."""
        applied = self._applied.get
        found = [key for key, raw in self._desired.items() if applied(key) != raw]
        found += self._applied.keys() - self._desired.keys()
        doubtful = self._uncertain | self.pending
        return [*found, *doubtful.difference(found)] if doubtful else found

    def all_known(self) -> set[str]:
        return self._desired.keys() | self._applied.keys() | self._uncertain

    def core_has_all(self) -> None:
        """A core was started with all desired users."""
        self._applied = dict(self._desired)
        self._uncertain.clear()
        self.pending.clear()
        self._givers.clear()

    def core_has(self, keys: Iterable[str]) -> None:
        """These users were applied as desired."""
        desired, applied = self._desired, self._applied
        some_open = bool(self._uncertain or self.pending)
        for key in keys:
            raw = desired.get(key)
            if raw is None:
                applied.pop(key, None)
            else:
                applied[key] = raw
            if some_open:
                self._uncertain.discard(key)
                self.pending.discard(key)
        if self._givers and not self.pending and not self._uncertain:
            self._givers.clear()

    def core_uncertain(self, keys: Iterable[str]) -> None:
        """Calls about these users failed: nobody knows what the core has."""
        keys = set(keys)
        for secret, key in self.secrets(keys - self.pending):
            # Whoever gives it up comes before whoever has got it.
            if not self._is_open(self._givers.get(secret, key)):
                self._givers[secret] = key
        self._uncertain |= keys
        self.pending -= keys

    def is_uncertain(self, key: str) -> bool:
        """A call about this user failed: the core may have something else than it should."""
        return key in self._uncertain

    def _is_open(self, key: str) -> bool:
        return key in self.pending or key in self._uncertain

    def secrets(self, keys: Iterable[str]) -> Iterator[tuple[int, str]]:
        """(hash of a secret, key) for what the core has of these users, as far as is known."""
        return _secrets(keys, self._applied)

    def desired_secrets(self, keys: Iterable[str]) -> Iterator[tuple[int, str]]:
        """(hash of a secret, key) for what is desired of these users."""
        return _secrets(keys, self._desired)

    def give(self, secrets: Iterable[tuple[int, str]]) -> None:
        """These secrets may be given up by users who are, or are about to be, pending or uncertain."""
        self._givers.update(secrets)

    def core_has_nothing_certain(self) -> None:
        """The core was taken over from an earlier supervisor: every user has to be looked at."""
        self._applied.clear()
        self._uncertain = set(self._desired)
        self.pending.clear()

    def accounts(
        self, keys: Iterable[str], inbounds: Mapping[str, InboundSpec]
    ) -> dict[str, dict[str, tuple[str, Account]]]:
        """Tag -> key -> (e-mail, account) of the desired users among ``keys``; unusable ones are left out."""
        found: dict[str, dict[str, tuple[str, Account]]] = {tag: {} for tag in inbounds}
        for key in keys:
            raw = self._desired.get(key)
            if raw is None:
                continue
            email, accounts = _decode(raw, inbounds)
            for tag, account in accounts.items():
                found[tag][key] = (email, account)
        return found

    def applied_items(self) -> list[tuple[str, bytes]]:
        """Users whom the core has or had."""
        return list(self._applied.items())

    def decoded(self, key: str, inbounds: Mapping[str, InboundSpec]) -> tuple[bytes, str, dict[str, Account]]:
        """(message, e-mail, tag -> account) of a desired user; no accounts where they are unusable. Raises KeyError."""
        raw = self._desired[key]
        return (raw, *_decode(raw, inbounds))

    def plan(
        self,
        keys: Iterable[str],
        inbounds: Mapping[str, InboundSpec],
        *,
        own: bool = False,
        looked: Looked = NOBODY_LOOKED,
    ) -> Plan:
        """What has to be altered in each inbound so that the core has ``keys`` as desired.

        Users who are pending or uncertain, and may have a secret that one of these gets, are done with them.
        ``own`` is for the application that ``pending`` users wait for: it knows what the core has of them.
        ``looked`` is what was found of some desired users with the same inbounds.
        """
        plans: dict[str, InboundPlan] = {}
        todo = list(keys)
        givers, there = self._givers, set(todo) if self._givers else set()
        given: set[str] = set()
        taken: set[str] = set()
        for key in todo:
            raw = self._desired.get(key)
            email, accounts = (looked.get(raw) if raw is not None else None) or _decode(raw, inbounds)
            old_email, old_accounts = _decode(self._applied.get(key), inbounds)
            doubtful = key in self._uncertain
            anything = doubtful or (key in self.pending and not own)
            for tag in inbounds:
                new, old = accounts.get(tag), old_accounts.get(tag)
                if anything:
                    change = Change(key, old_email or email or key, email if new else None, new)
                elif new != old or (new is not None and email != old_email):
                    change = Change(key, old_email if old else None, email if new else None, new)
                else:
                    continue
                plan = plans.get(tag)
                if plan is None:
                    plan = plans[tag] = InboundPlan(tag)
                plan.changes.append(change)
                if old is not None:
                    given.add(old.secret)
                if new is not None and (old is None or old.secret != new.secret or doubtful):
                    taken.add(new.secret)
                    giver = givers.get(hash(new.secret)) if givers else None
                    if giver is not None and giver not in there and self._is_open(giver):
                        there.add(giver)
                        todo.append(giver)
        return Plan(list(plans.values()), todo, moves=not given.isdisjoint(taken))


def _secrets(keys: Iterable[str], users: Mapping[str, bytes]) -> Iterator[tuple[int, str]]:
    for key in keys:
        if (raw := users.get(key)) is not None:
            for secret in secrets_of(raw):
                yield hash(secret), key


def _decode(raw: bytes | None, inbounds: Mapping[str, InboundSpec]) -> tuple[str, dict[str, Account]]:
    if raw is None:
        return "", {}
    user = pb.User.FromString(raw)
    try:
        return user.email, accounts_of(user, inbounds)
    except UnusableAccountError:
        # Checked when it was taken; another config's inbounds may find something else in it.
        return user.email, {}


def account_in(raw: bytes | None, inbound: InboundSpec) -> tuple[str, Account] | None:
    """(e-mail, account) of a user, given as its message, in one inbound; None where it has none."""
    email, accounts = _decode(raw, {inbound.tag: inbound})
    account = accounts.get(inbound.tag)
    return None if account is None else (email, account)


def secrets_of(raw: bytes) -> list[str]:
    """All secrets of a user, given as its message, as accounts have them; those that cannot be read are left out."""
    proxies = pb.User.FromString(raw).proxies
    found = [proxies.trojan.password, proxies.shadowsocks.password, proxies.hysteria.auth]
    for given in (proxies.vless.id, proxies.vmess.id):
        if given and (identity := canonical_id(given)):
            found.append(identity)
    return [secret for secret in found if secret]


def checked(user: pb.User, inbounds: Mapping[str, InboundSpec]) -> Refusal | dict[str, Account]:
    """The accounts of a user by tag, or why it cannot be applied."""
    email = user.email
    if not email:
        return Refusal("", "the e-mail is empty")
    try:
        return accounts_of(user, inbounds)
    except UnusableAccountError as error:
        return Refusal(email, str(error))


def refusal_of(user: pb.User, inbounds: Mapping[str, InboundSpec]) -> Refusal | None:
    """Why this user cannot be applied, None when it can."""
    found = checked(user, inbounds)
    return found if isinstance(found, Refusal) else None
