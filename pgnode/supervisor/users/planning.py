"""From what is known of some users to what has to be altered in each inbound. Pure.

Removals go before additions where a credential moves from one user to another: the core forgets a credential with whoever had it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pgnode.supervisor.users.credentials import number_of
from pgnode.supervisor.users.decoding import NOTHING_DECODED, DecodedUsers, Inbounds, account_in, decode
from pgnode.supervisor.users.table import Phase, Place, UserTable
from pgnode.xray.config.accounts import Account, credential_of, further_credentials, replaces
from pgnode.xray.config.protocols import WIREGUARD


class Change(NamedTuple):
    """One user in one inbound: ``old_email`` is removed if there may be one, ``new`` is added if there is one."""

    key: str
    old_email: str | None
    new_email: str | None
    new: Account | None


#: A call of the class itself takes twice as long.
_new: Final = tuple.__new__


@dataclass(slots=True)
class InboundPlan:
    """What to alter in one inbound."""

    tag: str
    changes: list[Change] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """How many core calls it takes."""
        return sum((c.old_email is not None) + (c.new is not None) for c in self.changes)


@dataclass(slots=True)
class Plan:
    """What has to be altered for some users."""

    inbounds: list[InboundPlan]
    #: The users: those it was made for, and those who have to be put again with them.
    keys: list[str]
    #: Credential that is given up, in its inbound -> key of the user who does, "" for several.
    given: dict[Place, str]
    #: Credential that somebody gets, in its inbound -> key.
    gained: dict[Place, str]

    @property
    def moves(self) -> bool:
        """Whether a credential goes from one user to another, or may: all removals come before all additions."""
        given = self.given
        if given.keys().isdisjoint(self.gained):
            # As nearly always: users get credentials that nobody had.
            return False
        return any(given.get(place, key) != key for place, key in self.gained.items())

    def join(self, other: Plan) -> None:
        """Take over users and credentials of another plan, whose changes were taken over already."""
        known = set(self.keys)
        self.keys += [key for key in other.keys if key not in known]
        self.gained |= other.gained
        for place, key in other.given.items():
            if self.given.setdefault(place, key) != key:
                self.given[place] = ""

    def hinders(self, later: Plan) -> bool:
        """Whether this has to come to its end before ``later`` is begun: in the core they would get in each other's way."""
        return not self.given.keys().isdisjoint(later.gained)


def plan_changes(
    users: UserTable,
    keys: Iterable[str],
    inbounds: Inbounds,
    *,
    own: bool = False,
    decoded: DecodedUsers = NOTHING_DECODED,
) -> Plan:
    """Plan what has to be altered so that the core has some users as desired.

    Whoever got a credential that one of these users gives up would lose it in the core, and is put again.

    Args:
        users: What is known of everybody.
        keys: The users.
        inbounds: The inbounds to alter, by tag.
        own: Whether this is for the rollout that pending users wait for: it knows what the core has of them.
        decoded: What was found of some desired users with the same inbounds.

    Returns:
        The plan; nothing was noted anywhere.
    """
    plans: dict[str, InboundPlan] = {}
    plan = Plan([], list(keys), {}, {})
    # Grows while it is gone through.
    todo = plan.keys
    losers = _Losers(users, plan, inbounds)
    #: Inbounds whose users have addresses that are nobody else's, too.
    addressed = {tag for tag, inbound in inbounds.items() if inbound.protocol == WIREGUARD}
    for key in todo:
        raw, applied, phase, perhaps = users.record(key)
        email, accounts = (decoded.get(raw) if raw is not None else None) or decode(raw, inbounds)
        old_email, old_accounts = decode(applied, inbounds)
        unknown = phase is Phase.UNKNOWN or (phase is Phase.PENDING and not own)
        # Nearly all users stay in the same inbounds, a few of many.
        same = not unknown and accounts.keys() == old_accounts.keys()
        for tag in accounts if same else inbounds:
            new, old = accounts.get(tag), old_accounts.get(tag)
            if unknown:
                change = _new(Change, (key, old_email or email or key, email if new else None, new))
            elif new != old or (new is not None and email != old_email):
                change = _new(Change, (key, old_email if old else None, email if new else None, new))
            else:
                continue
            if new is not None and old is not None and email == old_email and not unknown and replaces(new, old):
                change = _new(Change, (key, None, email, new))
            of_inbound = plans.get(tag)
            if of_inbound is None:
                of_inbound = plans[tag] = InboundPlan(tag)
            of_inbound.changes.append(change)
            given = credential_of(old) if old is not None else ""
            if given:
                losers.give(tag, given, key)
            if new is not None and (credential := credential_of(new)) and (credential != given or unknown):
                plan.gained[tag, credential] = key
            if tag in addressed:
                before, after = further_credentials(old) if old else [], further_credentials(new) if new else []
                for credential in before:
                    if unknown or credential not in after:
                        losers.give(tag, credential, key)
                plan.gained.update(((tag, item), key) for item in after if unknown or item not in before)
        if unknown:
            for message in (*perhaps, raw):
                for tag, account in decode(message, inbounds)[1].items():
                    if credential := credential_of(account):
                        losers.give(tag, credential, key)
                    for credential in further_credentials(account):
                        losers.give(tag, credential, key)
    if losers.found:
        losers.put_again(plans, inbounds)
    plan.inbounds += plans.values()
    return plan


class _Losers:
    """Users who lose a credential in the core by a plan in the making."""

    __slots__ = ("_given", "_inbounds", "_last", "_last_holders", "_owner", "_plan", "_users", "found")

    def __init__(self, users: UserTable, plan: Plan, inbounds: Inbounds) -> None:
        self._users = users
        self._plan = plan
        self._given = plan.given
        self._owner = users.owners.get
        #: The credential that was given up last, mostly in several inbounds in a row, and who may have it.
        self._last = ""
        self._last_holders: list[str] = []
        self._inbounds = inbounds
        #: (tag, key, credential).
        self.found: list[tuple[str, str, str]] = []

    def give(self, tag: str, credential: str, key: str) -> None:
        """Note that a user gives up a credential in an inbound, and who loses it thereby."""
        place = tag, credential
        if self._given.setdefault(place, key) != key:
            self._given[place] = ""
        owner = self._owner(place)
        if owner is not None and owner != key:
            self.found.append((tag, owner, credential))
            if self._users.phase(owner) is not Phase.IN_STEP and owner not in self._plan.keys:
                # It has to be brought in step in all inbounds.
                self._plan.keys.append(owner)
        if credential != self._last:
            self._last, self._last_holders = credential, self._users.credentials.holders(number_of(credential))
        for holder in self._last_holders:
            if holder not in (key, owner) and self._users.phase(holder) in (Phase.IN_STEP, Phase.UNKNOWN):
                self._give_of(tag, holder, credential)

    def _give_of(self, tag: str, holder: str, credential: str) -> None:
        """Note that somebody loses a credential, if it has it."""
        found = account_in(self._users.get(holder), self._inbounds[tag])
        if found is None or credential_of(found[1]) != credential:
            return
        self.found.append((tag, holder, credential))
        if self._users.phase(holder) is Phase.UNKNOWN and holder not in self._plan.keys:
            self._plan.keys.append(holder)

    def put_again(self, plans: Mapping[str, InboundPlan], inbounds: Inbounds) -> None:
        """Add whoever loses a credential in an inbound and is not changed there anyway."""
        done = {(tag, change.key) for tag, plan in plans.items() for change in plan.changes}
        taken = {
            (tag, credential_of(change.new))
            for tag, plan in plans.items()
            for change in plan.changes
            if change.new is not None
        }
        known = set(self._plan.keys)
        for tag, key, credential in self.found:
            if (tag, key) in done or (tag, credential) in taken:
                # Who gets it by this plan was asked for later.
                continue
            found = account_in(self._users.get(key), inbounds[tag])
            if found is None or credential_of(found[1]) != credential:
                continue
            done.add((tag, key))
            plans[tag].changes.append(Change(key, found[0], *found))
            self._plan.gained[tag, credential] = key
            if key not in known:
                known.add(key)
                self._plan.keys.append(key)
