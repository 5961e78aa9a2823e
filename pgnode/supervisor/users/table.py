"""One record for each user: what is desired, what the core has of it, and how certain that is. State only, no I/O, no clock.

A user's key is its e-mail in lower case, as the core compares them. Nearly all users are *in step*: the core has what is desired.
They are one entry in one dict; only the others have an object of their own.

Where no core runs, the records speak of the next one, which will be started with everybody as desired.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from types import MappingProxyType
from typing import Final, NamedTuple

from pgnode.store.changes import Journal
from pgnode.supervisor.users.credentials import CredentialIndex

#: An inbound's tag and a credential in it: in each inbound the core keeps its users apart.
Place = tuple[str, str]

#: Changes since all users were stored the last time with which they are stored whole again, at least; and, as a share of all,
#: from which on that costs less than storing the changes.
GATHER_USERS = 5_000
GATHER_SHARE = 0.25

#: Credentials of which it stays known who got them last; up to twice as many now and then. Some 100 bytes each.
OWNERS_KEPT = 10_000


class Phase(enum.Enum):
    """How a user stands between what is desired and what the core has."""

    #: The core has what is desired.
    IN_STEP = enum.auto()
    #: The core has exactly ``applied``, and something else is desired: whoever changed that is about to apply it.
    CHANGED = enum.auto()
    #: A rollout has taken the user on and has not come to it, or not in all inbounds. Only that rollout knows what was done.
    PENDING = enum.auto()
    #: A call about the user failed, or the core was taken over: nobody knows what it has.
    UNKNOWN = enum.auto()


class UserRecord(NamedTuple):
    """One user. None is no user: not desired, or not in the core."""

    #: The ``User`` message that is asked for.
    desired: bytes | None
    #: The message that the core had, when that was certain last.
    applied: bytes | None
    phase: Phase
    #: Further messages of which the core may have something by now.
    perhaps: tuple[bytes, ...] = ()


class _Open(NamedTuple):
    """What is kept of a user who is not in step; see :class:`UserRecord`."""

    phase: Phase
    applied: bytes | None
    perhaps: tuple[bytes, ...] = ()


#: No further messages.
_NOBODY_KNOWS: Final[tuple[bytes, ...]] = ()

#: A call of the class itself takes twice as long.
_new: Final = tuple.__new__

#: Users who are new to the core need no object each.
_NEW: Final = {phase: _Open(phase, None) for phase in Phase}


class CredentialOwners:
    """Who got a credential last, and perhaps gave it up again, where another user may still have it in the core.

    The core keeps its users by credential: it forgets one together with the user who had it, also when somebody else has got it
    by then. So whoever plans to take a credential from a user asks here who has it now, and puts that one again.
    """

    def __init__(self) -> None:
        #: Hash of the credential and its inbound -> key, the oldest first.
        self._got: dict[int, str] = {}

    def __len__(self) -> int:
        """Return of how many credentials the owner is known."""
        return len(self._got)

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"CredentialOwners({len(self._got)} credentials)"

    def get(self, place: Place) -> str | None:
        """Return who got a credential in an inbound last, None where nobody did for long."""
        return self._got.get(hash(place)) if self._got else None

    def note(self, gained: Mapping[Place, str]) -> None:
        """Note who is about to get which credential in which inbound: key by place."""
        got = self._got
        for place, key in gained.items():
            number = hash(place)
            # The last ones to be noted are the last ones to be forgotten.
            got.pop(number, None)
            got[number] = key

    def trim(self, count: int = OWNERS_KEPT) -> None:
        """Forget the oldest ones above twice ``count``."""
        if len(self._got) > 2 * count:
            self._got = dict(islice(self._got.items(), len(self._got) - count, None))

    def clear(self) -> None:
        """Forget all: a new core has everybody as desired."""
        self._got = {}


class UserTable:
    """All users. Changes of the desired ones go to the journal.

    Args:
        journal: Where changes are noted that are to be stored.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._desired: dict[str, bytes] = {}
        #: Whoever is not in step.
        self._open: dict[str, _Open] = {}
        self._pending_count = 0
        self.owners: Final = CredentialOwners()
        self._credentials = CredentialIndex()
        #: How many users changed since all were stored.
        self._changed = 0

    def __len__(self) -> int:
        """Return how many users are desired."""
        return len(self._desired)

    def __repr__(self) -> str:
        """Say how many there are, and how many of them are not in step."""
        return f"UserTable({len(self._desired)} desired, {len(self._open)} not in step)"

    # --- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        """Return the desired message of a user."""
        return self._desired.get(key)

    @property
    def desired(self) -> Mapping[str, bytes]:
        """Key -> ``User`` message of everybody who is desired; a view."""
        return MappingProxyType(self._desired)

    def keys(self) -> set[str]:
        """Return the keys of everybody who is desired."""
        return set(self._desired)

    def copy(self) -> dict[str, bytes]:
        """Return everybody who is desired now, by key."""
        return dict(self._desired)

    def items(self) -> Iterable[tuple[str, bytes]]:
        """Return (key, message) of everybody who is desired."""
        return self._desired.items()

    def all_known(self) -> set[str]:
        """Return the keys of everybody who is desired, or of whom the core may have something."""
        return self._desired.keys() | self._open.keys()

    def record(self, key: str) -> UserRecord:
        """Return what is known of a user."""
        desired, found = self._desired.get(key), self._open.get(key)
        if found is None:
            return UserRecord(desired, desired, Phase.IN_STEP)
        return _new(UserRecord, (desired, found.applied, found.phase, found.perhaps))

    def not_in_step(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None, bytes | None, tuple[bytes, ...]]]:
        """Yield those of some users whom the core does not have as desired.

        Args:
            keys: The users.

        Yields:
            Key, what is desired, and what the core had or may have: :attr:`UserRecord.applied` and :attr:`UserRecord.perhaps`.
        """
        opened, desired = self._open, self._desired
        for key in keys if opened else ():
            found = opened.get(key)
            if found is not None:
                yield key, desired.get(key), found[1], found[2]

    def phase(self, key: str) -> Phase:
        """Return how a user stands; whoever is not known is in step."""
        found = self._open.get(key)
        return Phase.IN_STEP if found is None else found.phase

    def applied(self, key: str) -> bytes | None:
        """Return what the core has of a user, None where that is nothing or not certain."""
        found = self._open.get(key)
        if found is None:
            return self._desired.get(key)
        return found.applied if found.phase is Phase.CHANGED else None

    def before(self, key: str) -> bytes | None:
        """Return what the core had of a user before what is being done now, None where that is nothing or not certain."""
        found = self._open.get(key)
        if found is None:
            return self._desired.get(key)
        return None if found.phase is Phase.UNKNOWN else found.applied

    def may_have_had(self, key: str) -> bool:
        """Return whether a user is not in step of whom the core had something, or may have it."""
        found = self._open.get(key)
        return found is not None and (found.applied is not None or bool(found.perhaps))

    def applied_items(self) -> list[tuple[str, bytes]]:
        """Return (key, message) of everybody whom the core has or had."""
        opened = self._open
        had = [(key, raw) for key, raw in self._desired.items() if key not in opened]
        return had + [(key, found.applied) for key, found in opened.items() if found.applied is not None]

    @property
    def applied_count(self) -> int:
        """How many users the core has, as desired or as they were before."""
        in_step = len(self._desired) - sum(key in self._desired for key in self._open)
        return in_step + sum(
            found.applied is not None and found.phase is not Phase.UNKNOWN for found in self._open.values()
        )

    @property
    def has_pending(self) -> bool:
        """Whether somebody waits for a rollout."""
        return self._pending_count > 0

    def in_phase(self, phase: Phase) -> Iterator[str]:
        """Return the keys of everybody in a phase other than IN_STEP."""
        return (key for key, found in self._open.items() if found.phase is phase)

    def differing(self, keys: Iterable[str]) -> list[str]:
        """Return those of ``keys`` who are not in step."""
        opened = self._open
        return [key for key in keys if key in opened] if opened else []

    def differing_all(self) -> list[str]:
        """Return everybody who is not in step."""
        return list(self._open)

    # --- what is desired ----------------------------------------------------------------------------------------

    @property
    def credentials(self) -> CredentialIndex:
        """Who may have which credential, as desired."""
        return self._credentials

    def use_credentials(self, index: CredentialIndex) -> None:
        """Use another index, which has all desired users: for other inbounds, or for the previous ones again."""
        self._credentials = index

    def restore(self, stored: Mapping[str, bytes], changed: int = 0) -> None:
        """Take over what the store holds.

        Args:
            stored: Key -> message.
            changed: How many of them the store has as changes.
        """
        self._desired = dict(stored)
        self._changed = changed

    def gather(self) -> None:
        """Note everybody in place of many changes; to be called after each change, before it is committed."""
        self._changed += len(self._journal.users)
        if self._changed >= max(GATHER_USERS, GATHER_SHARE * len(self._desired)):
            self._journal.put_all_users(self.copy())
            self._changed = 0

    def return_to(self, desired: Mapping[str, bytes]) -> None:
        """Make the desired users what they were before a start that failed; no core has any."""
        before = self._desired
        for key in before.keys() | desired.keys():
            if before.get(key) != desired.get(key):
                self._journal.users[key] = desired.get(key)
        self._desired = dict(desired)
        self.core_has_all()
        self.gather()

    def put(self, key: str, raw: bytes | None, numbers: Iterable[int] | None = None) -> bool:
        """Make a message the desired one of a user.

        Args:
            key: The user's key.
            raw: The message; None removes the user.
            numbers: Its credentials, where they are known already.

        Returns:
            Whether that changed anything.
        """
        before = self._desired.get(key)
        if before == raw:
            return False
        index = self._credentials
        if index.inbounds:
            if before is not None and index.waiting:
                index.give_up(before)
            # None of them where they were entered while the user was read.
            if raw is not None and (numbers is None or numbers):
                index.claim(key, index.numbers(raw) if numbers is None else numbers)
        found = self._open.get(key)
        if found is None:
            self._open[key] = (
                _NEW[Phase.CHANGED] if before is None else _new(_Open, (Phase.CHANGED, before, _NOBODY_KNOWS))
            )
        elif found.phase is Phase.CHANGED:
            if found.applied == raw:
                # As the core has it: both are one object again.
                raw = found.applied
                del self._open[key]
        elif before is not None and before != found.applied and before not in found.perhaps:
            self._open[key] = found._replace(perhaps=(*found.perhaps, before))
        if raw is None:
            del self._desired[key]
        else:
            self._desired[key] = raw
        self._journal.users[key] = raw
        return True

    def put_all(self, users: Mapping[str, bytes]) -> None:
        """Make messages the desired ones of many users, whose credentials are known already.

        Args:
            users: Key -> message.
        """
        desired, opened, noted = self._desired, self._open, self._journal.users
        changed, waited_for = Phase.CHANGED, bool(self._credentials.waiting)
        new = _NEW[changed]
        for key, raw in users.items():
            before = desired.get(key)
            if before == raw:
                continue
            if waited_for or key in opened:
                self.put(key, raw, ())
                continue
            opened[key] = new if before is None else _new(_Open, (changed, before, _NOBODY_KNOWS))
            desired[key] = noted[key] = raw

    # --- what the core has --------------------------------------------------------------------------------------

    def core_has_all(self) -> None:
        """Note that a core was started with all desired users, or that the next one will be."""
        self._open.clear()
        self._pending_count = 0
        self.owners.clear()

    def core_has(self, keys: Iterable[str]) -> None:
        """Note that these users were applied as desired."""
        opened = self._open
        for key in keys if opened else ():
            found = opened.pop(key, None)
            if found is not None and found.phase is Phase.PENDING:
                self._pending_count -= 1
        if not self._pending_count:
            self.owners.trim()

    def core_uncertain(self, keys: Iterable[str]) -> None:
        """Note that calls about these users failed: nobody knows what the core has."""
        self._set_phase(keys, Phase.UNKNOWN)

    def core_has_nothing_certain(self, but: Set[str] = frozenset()) -> None:
        """Note that the core was taken over: every user has to be looked at, ``but`` those whom it has as desired."""
        self.core_has_all()
        self.core_uncertain(key for key in self._desired if key not in but)

    def await_rollout(self, keys: Iterable[str]) -> None:
        """Note that a rollout has taken these users on. Whoever is unknown stays so."""
        self._set_phase(keys, Phase.PENDING, of=Phase.CHANGED)

    def _set_phase(self, keys: Iterable[str], phase: Phase, *, of: Phase | None = None) -> None:
        """Set the phase of users; of those who are not in step only ``of`` those in that phase, where one is given."""
        opened, desired = self._open, self._desired
        new, more = _NEW[phase], 0
        for key in keys:
            found = opened.get(key)
            if found is None:
                raw = desired.get(key)
                opened[key] = new if raw is None else _new(_Open, (phase, raw, _NOBODY_KNOWS))
            else:
                before, applied, perhaps = found
                if of is not None and before is not of:
                    continue
                more -= before is Phase.PENDING
                opened[key] = new if applied is None and not perhaps else _new(_Open, (phase, applied, perhaps))
            more += phase is Phase.PENDING
        self._pending_count += more
