"""The clients of a config in the making, collected while its users are taken in: each is decoded once. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pgnode.xray.config.accounts import Account, client_json


class ClientJsonCache:
    """JSON of each user's clients. What it says of a user holds for one message of that user only."""

    def __init__(self, tags: Iterable[str]) -> None:
        self._tags = tuple(tags)
        #: Key -> the ``User`` message, and the client for each tag.
        self._known: dict[str, tuple[bytes, tuple[str | None, ...]]] = {}

    def __repr__(self) -> str:
        return f"ClientJsonCache({len(self._known)} users, {len(self._tags)} inbounds)"

    def put(self, key: str, raw: bytes, email: str, accounts: Mapping[str, Account]) -> None:
        """The accounts of a user by tag, in place of what was known of the user."""
        of_user = [client_json(email, accounts[tag]) if tag in accounts else None for tag in self._tags]
        self._known[key] = (raw, tuple(of_user))

    def missing(self, desired: Mapping[str, bytes]) -> list[str]:
        """Those of the desired users of whom nothing is known as they are desired."""
        known = self._known
        return [key for key, raw in desired.items() if key not in known or known[key][0] != raw]

    def hand_over(self, desired: Mapping[str, bytes]) -> dict[str, list[str]]:
        """Tag -> clients of the desired users, none of whom may be missing, for :func:`pgnode.xray.config.document.render`.

        Nothing is known afterwards: with many users this is a lot of memory.
        """
        rows = [self._known[key][1] for key in desired]
        self._known = {}
        return {tag: [client for row in rows if (client := row[at]) is not None] for at, tag in enumerate(self._tags)}
