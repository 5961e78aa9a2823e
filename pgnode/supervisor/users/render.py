"""The JSON of users' clients for the config of a core that is about to be started, made as users are taken in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pgnode.xray.config.accounts import Account, client_head, client_tail


class ClientJsonCache:
    """JSON of each user's clients, collected while users are taken in: each is decoded once.

    What it says of a user holds for one message of that user only.

    Args:
        tags: The inbounds, in the order of the rows.
    """

    def __init__(self, tags: Iterable[str]) -> None:
        self._tags = tuple(tags)
        #: Key -> the ``User`` message, and the client for each tag.
        self._known: dict[str, tuple[bytes, tuple[str | None, ...]]] = {}

    def __repr__(self) -> str:
        return f"ClientJsonCache({len(self._known)} users, {len(self._tags)} inbounds)"

    def put(self, key: str, raw: bytes, email: str, accounts: Mapping[str, Account]) -> None:
        """Note the accounts of a user by tag, in place of what was known of the user."""
        of_user: list[str | None] = []
        head = client_head(email)
        last, text = None, ""
        for tag in self._tags:
            account = accounts.get(tag)
            # Inbounds that are alike share one account, so they share its text.
            if account is not None and account is not last:
                last, text = account, head + client_tail(account)
            of_user.append(None if account is None else text)
        self._known[key] = (raw, tuple(of_user))

    def missing(self, desired: Mapping[str, bytes]) -> list[str]:
        """Return those of the desired users of whom nothing is known as they are desired."""
        known = self._known
        return [key for key, raw in desired.items() if key not in known or known[key][0] != raw]

    def hand_over(self, desired: Mapping[str, bytes]) -> dict[str, list[str]]:
        """Give away what was collected, which is a lot of memory with many users: nothing is known afterwards.

        Args:
            desired: The users to be had, none of whom may be missing.

        Returns:
            Tag -> clients, for :func:`pgnode.xray.config.document.render`.
        """
        rows = [self._known[key][1] for key in desired]
        self._known = {}
        return {tag: [client for row in rows if (client := row[at]) is not None] for at, tag in enumerate(self._tags)}
