"""Which users may have which credential: an index of all of them, small and with no objects of its own. Pure.

The core looks a user up by its credential, so two users with one cannot both be in an inbound
(:func:`pgnode.xray.config.accounts.credential_of`). Who else has it is to be found in a time that does not grow with the users.

The index may name users who have a credential no longer: whoever asks looks at the user. So nothing has to be done when a
credential is given up, and nobody who has one is ever missing. Now and then another one is made of those that there are. An entry
is 64 bits, some nine bytes with what a growing array keeps free: 13 bits of the credential's hash choose an array, the entry has
40 further ones and 24 for the user. A "number" is these 53 bits of a credential's hash.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from pgnode.supervisor.users.decoding import Inbounds, decode
from pgnode.xray.config.accounts import Account, credential_of, further_credentials
from pgnode.xray.config.protocols import WIREGUARD

_BUCKET_BITS: Final = 13
_BUCKET_MASK: Final = (1 << _BUCKET_BITS) - 1
_USER_BITS: Final = 24
#: Users that can be told apart, at most.
USERS_MAX: Final = 1 << _USER_BITS
#: What of a hash is kept.
_NUMBER_MASK: Final = (1 << 64 - _USER_BITS + _BUCKET_BITS) - 1

#: An index is worn when so many entries were added since it was made, and as many as it had then.
WORN_ENTRIES: Final = 200_000

#: Parts of an index put in order at a time before the event loop gets its turn: some 5 ms with 100,000 users.
INDEX_PARTS: Final = 512


def number_of(credential: str) -> int:
    """Return the number of one credential."""
    return hash(credential) & _NUMBER_MASK


def numbers_of(accounts: Mapping[str, Account]) -> list[int]:
    """Return the number of each credential among some accounts, each once."""
    found: list[int] = []
    last = None
    for account in accounts.values():
        # Inbounds that are alike share one account.
        if account is last:
            continue
        last = account
        if (credential := credential_of(account)) and (number := hash(credential) & _NUMBER_MASK) not in found:
            found.append(number)
        if account[0] == WIREGUARD:
            found += [number for number in map(number_of, further_credentials(account)) if number not in found]
    return found


class CredentialIndex:
    """Credential, by its number -> the users who may have it, for some inbounds. Belongs to the supervisor's loop.

    Args:
        inbounds: The inbounds, by tag. Without any nothing is kept.
        worn_entries: So many entries have to be added until it is worn, at least.
    """

    def __init__(self, inbounds: Inbounds | None = None, *, worn_entries: int = WORN_ENTRIES) -> None:
        #: Entries that were added since it was made, and how many it takes until its size is looked at again.
        self._added = 0
        self._worn_at = worn_entries
        self.inbounds: Final[Inbounds] = dict(inbounds or {})
        self._buckets: list[array[int] | None] = [None] * (1 << _BUCKET_BITS)
        #: Users by their number here.
        self._names: list[str] = []
        #: From which bucket on the order is not made yet.
        self._unfinished = len(self._buckets)
        #: Credential that somebody asked for whom others may have it -> who did, the last one last; for whoever settles that.
        self.contested: Final[dict[int, dict[str, None]]] = {}
        #: Credential -> users who are rejected until it is given up.
        self.waiting: Final[dict[int, dict[str, None]]] = {}
        #: Credentials of the latter that were perhaps given up since.
        self.freed: Final[set[int]] = set()
        #: How many commands are being read whose users are entered before they are the desired ones, and which credentials
        #: were found meanwhile that several users may have.
        self._early = 0
        self.shared: Final[set[int]] = set()

    def __len__(self) -> int:
        """Return how many entries there are."""
        return sum(len(bucket) for bucket in self._buckets if bucket is not None)

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"CredentialIndex({len(self)} entries, {len(self._names)} users, {len(self.waiting)} waited for)"

    @property
    def used(self) -> bool:
        """Whether it is kept."""
        return bool(self.inbounds)

    def is_worn(self) -> bool:
        """Tell whether so many entries were added that most may be of the past: then a new index is worth its time."""
        if self._added < self._worn_at or self._early:
            # What was entered early is in no other one.
            return False
        size = len(self)
        if 2 * self._added >= size:
            return True
        self._worn_at = size // 2
        return False

    def numbers(self, raw: bytes | None) -> list[int]:
        """Return the number of each credential that a user's message has in the inbounds."""
        return numbers_of(decode(raw, self.inbounds)[1])

    def holders(self, number: int) -> list[str]:
        """Return the keys of those who may have a credential."""
        bucket = self._buckets[number & _BUCKET_MASK]
        if bucket is None:
            return []
        low = number >> _BUCKET_BITS << _USER_BITS
        at, size = bisect_left(bucket, low), len(bucket)
        found = []
        while at < size and (entry := bucket[at]) - low < USERS_MAX:
            found.append(self._names[entry - low])
            at += 1
        return found

    def add(self, key: str, numbers: Iterable[int]) -> None:
        """Enter the credentials of a user who is new here, fast; nothing may be asked before :meth:`finish` was called."""
        user = len(self._names)
        self._names.append(key)
        buckets = self._buckets
        for number in (hash(key) & _NUMBER_MASK, *numbers):
            bucket = buckets[number & _BUCKET_MASK]
            entry = number >> _BUCKET_BITS << _USER_BITS | user
            if bucket is None:
                buckets[number & _BUCKET_MASK] = array("Q", (entry,))
            else:
                bucket.append(entry)
        self._unfinished = 0

    def finish(self, count: int = 1 << _BUCKET_BITS) -> bool:
        """Put what was entered by :meth:`add` in order, part by part, and find out what is contested.

        Args:
            count: How many parts, of 8,192.

        Returns:
            Whether that was the last one.
        """
        end = self._unfinished + count
        for at in range(self._unfinished, min(end, len(self._buckets))):
            if (bucket := self._buckets[at]) is not None:
                self._buckets[at] = array("Q", entries := sorted(bucket))
                prints = [entry >> _USER_BITS for entry in entries]
                if len(set(prints)) < len(prints):
                    self._contest(at, prints)
        self._unfinished = end
        return end >= len(self._buckets)

    def _contest(self, bucket: int, prints: list[int]) -> None:
        for before, print_ in pairwise(prints):
            if before == print_:
                self.contested.setdefault(print_ << _BUCKET_BITS | bucket, {})

    def claim(self, key: str, numbers: Iterable[int]) -> None:
        """Note that a user has these credentials from now on. What others may have, too, is contested."""
        for number in self._enter_all(key, numbers):
            self.contest(key, number)

    def contest(self, key: str, number: int) -> None:
        """Note that a user has a credential from now on that others may have, too."""
        claims = self.contested.setdefault(number, {})
        claims.pop(key, None)
        claims[key] = None
        if self._early:
            self.shared.add(number)

    def begin_early(self) -> None:
        """Keep in mind what is shared, until :meth:`end_early` was called as often."""
        self._early += 1

    def enter_early(self, key: str, numbers: Iterable[int]) -> None:
        """Enter the credentials of a user who will have them, and has not got them yet."""
        self.shared.update(self._enter_all(key, numbers))

    def end_early(self) -> None:
        """Note that the users of a command are the desired ones, or never will be."""
        self._early -= 1
        if not self._early:
            self.shared.clear()

    def forget(self, number: int, key: str) -> None:
        """Note that a user does not have a credential."""
        if self._early:
            # Perhaps it will.
            return
        bucket = self._buckets[number & _BUCKET_MASK]
        if bucket is not None:
            first, end = _run(bucket, number)
            for at in range(first, end):
                if self._names[bucket[at] & USERS_MAX - 1] == key:
                    del bucket[at]
                    return

    def wait(self, number: int, key: str) -> None:
        """Note that a user is rejected because somebody else has this credential."""
        self.waiting.setdefault(number, {})[key] = None

    def give_up(self, raw: bytes) -> None:
        """Note that a user has another message than this from now on: perhaps somebody waits for what it had."""
        if self.waiting:
            self.freed.update(number for number in self.numbers(raw) if number in self.waiting)

    def _enter_all(self, key: str, numbers: Iterable[int]) -> list[int]:
        """Enter a user; return the credentials that others may have, too."""
        user, shared = -1, []
        for number in numbers:
            if user < 0:
                user = self._user(key)
            if self._enter(number, user):
                shared.append(number)
        return shared

    def _user(self, key: str) -> int:
        """Return the number of a user, who gets one if need be. It is found as if the key were a credential."""
        number = hash(key) & _NUMBER_MASK
        bucket = self._buckets[number & _BUCKET_MASK]
        if bucket is not None:
            low = number >> _BUCKET_BITS << _USER_BITS
            at, size, names = bisect_left(bucket, low), len(bucket), self._names
            while at < size and (user := bucket[at] - low) < USERS_MAX:
                if names[user] == key:
                    return user
                at += 1
        user = len(self._names)
        self._names.append(key)
        self._enter(number, user)
        return user

    def _enter(self, number: int, user: int) -> bool:
        """Enter a user; return whether there are others."""
        bucket = self._buckets[number & _BUCKET_MASK]
        if bucket is None:
            bucket = self._buckets[number & _BUCKET_MASK] = array("Q")
        low = number >> _BUCKET_BITS << _USER_BITS
        entry = low | user
        at, size = bisect_left(bucket, entry), len(bucket)
        others = at > 0 and bucket[at - 1] >= low
        if at == size:
            bucket.append(entry)
            self._added += 1
            return others
        following = bucket[at]
        if following == entry:
            return others or (at + 1 < size and bucket[at + 1] - low < USERS_MAX)
        bucket.insert(at, entry)
        self._added += 1
        return others or following - low < USERS_MAX


def _run(bucket: array[int], number: int) -> tuple[int, int]:
    """Return where the entries of a number begin and end."""
    low = number >> _BUCKET_BITS << _USER_BITS
    first = bisect_left(bucket, low)
    if first == len(bucket) or bucket[first] - low >= USERS_MAX:
        return first, first
    return first, bisect_left(bucket, low + USERS_MAX, first)
