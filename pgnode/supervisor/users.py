"""The desired users and what of them the core has. No I/O, no clock.

A user is kept as the bytes of its ``User`` message, under its e-mail in lower case, as the core compares them. What
accounts it has in which inbound follows from these bytes and the inbounds, so nothing is kept per inbound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pgnode.supervisor.planner import Change, InboundPlan
from pgnode.wire import service_pb2 as pb
from pgnode.xray.accounts import Account, UnusableAccountError, accounts_of
from pgnode.xray.config import InboundSpec


@dataclass(frozen=True, slots=True)
class Refusal:
    """A user that cannot be applied, and why."""

    email: str
    cause: str

    def __str__(self) -> str:
        return f"{self.email or '(empty e-mail)'}: {self.cause}"


class UserTable:
    """Desired users, applied users, and which of both the store does not have yet."""

    def __init__(self) -> None:
        self._desired: dict[str, bytes] = {}
        self._applied: dict[str, bytes] = {}
        #: Users of whom the core may have something else than ``_applied`` says: a call about them failed.
        self._uncertain: set[str] = set()
        #: Users who are being brought to what is desired by a long application (pgnode.supervisor.application), which has
        #: not come to them, or not in all inbounds. For everybody else they are uncertain.
        self.pending: set[str] = set()
        #: Users whose copy in the store is older than ``_desired``.
        self.unstored: set[str] = set()

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

    def restore(self, stored: Mapping[str, bytes]) -> None:
        """Take over what the store holds."""
        self._desired = dict(stored)

    def put(self, key: str, raw: bytes | None) -> bool:
        """Make ``raw`` the desired user; None removes it. Returns whether that changed anything."""
        if self._desired.get(key) == raw:
            return False
        if raw is None:
            del self._desired[key]
        else:
            self._desired[key] = raw
        self.unstored.add(key)
        return True

    def differing(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` that the core has differently, or perhaps so."""
        desired, applied = self._desired, self._applied
        doubtful = self._uncertain | self.pending if self.pending else self._uncertain
        return [key for key in keys if desired.get(key) != applied.get(key) or key in doubtful]

    def all_known(self) -> set[str]:
        return self._desired.keys() | self._applied.keys() | self._uncertain

    def core_has_all(self) -> None:
        """A core was started with all desired users."""
        self._applied = dict(self._desired)
        self._uncertain.clear()
        self.pending.clear()

    def core_has(self, keys: Iterable[str]) -> None:
        """These users were applied as desired."""
        for key in keys:
            raw = self._desired.get(key)
            if raw is None:
                self._applied.pop(key, None)
            else:
                self._applied[key] = raw
            self._uncertain.discard(key)
            self.pending.discard(key)

    def core_uncertain(self, keys: Iterable[str]) -> None:
        """Calls about these users failed: nobody knows what the core has."""
        keys = set(keys)
        self._uncertain |= keys
        self.pending -= keys

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

    def account(self, key: str, inbound: InboundSpec) -> tuple[str, Account] | None:
        """(e-mail, account) of a desired user in one inbound; None where it has none."""
        raw = self._desired.get(key)
        if raw is None:
            return None
        email, accounts = _decode(raw, {inbound.tag: inbound})
        account = accounts.get(inbound.tag)
        return None if account is None else (email, account)

    def plan(self, keys: Iterable[str], inbounds: Mapping[str, InboundSpec], *, own: bool = False) -> list[InboundPlan]:
        """What has to be altered in each inbound so that the core has ``keys`` as desired.

        ``own`` is for the application that ``pending`` users wait for: it knows what the core has of them.
        """
        plans: dict[str, InboundPlan] = {}
        for key in keys:
            for tag, change in self._changes(key, inbounds, own):
                plans.setdefault(tag, InboundPlan(tag)).changes.append(change)
        return list(plans.values())

    def moves(self, key: str, inbounds: Mapping[str, InboundSpec]) -> Iterator[tuple[str, str, bool]]:
        """(inbound, secret, whether it is given up) for each secret that this user gives up or takes on."""
        _, accounts = _decode(self._desired.get(key), inbounds)
        _, old_accounts = _decode(self._applied.get(key), inbounds)
        for tag in inbounds:
            new, old = accounts.get(tag), old_accounts.get(tag)
            if new != old:
                if old is not None:
                    yield tag, old.secret, True
                if new is not None:
                    yield tag, new.secret, False

    def _changes(self, key: str, inbounds: Mapping[str, InboundSpec], own: bool) -> Iterator[tuple[str, Change]]:
        raw, before = self._desired.get(key), self._applied.get(key)
        email, accounts = _decode(raw, inbounds)
        old_email, old_accounts = _decode(before, inbounds)
        uncertain = key in self._uncertain or (key in self.pending and not own)
        for tag in inbounds:
            new, old = accounts.get(tag), old_accounts.get(tag)
            if uncertain:
                yield tag, Change(key, old_email or email or key, email if new else None, new)
            elif new != old or (new is not None and email != old_email):
                yield tag, Change(key, old_email if old else None, email if new else None, new)


def _decode(raw: bytes | None, inbounds: Mapping[str, InboundSpec]) -> tuple[str, dict[str, Account]]:
    if raw is None:
        return "", {}
    user = pb.User.FromString(raw)
    try:
        return user.email, accounts_of(user, inbounds)
    except UnusableAccountError:
        # Checked when it was taken; another config's inbounds may find something else in it.
        return user.email, {}


def refusal_of(user: pb.User, inbounds: Mapping[str, InboundSpec]) -> Refusal | None:
    """Why this user cannot be applied, None when it can."""
    if not user.email:
        return Refusal("", "the e-mail is empty")
    try:
        accounts_of(user, inbounds)
    except UnusableAccountError as error:
        return Refusal(user.email, str(error))
    return None
