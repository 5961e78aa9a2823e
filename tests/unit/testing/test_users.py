"""Users have every proxy, and secrets of their own."""

from __future__ import annotations

import base64

from pgnode.testing.users import make_user, make_users, ss2022_key


def test_secrets_come_from_email_and_key() -> None:
    first, again, other = (make_user("a@b", ["in"], key=key) for key in ("", "", "new"))
    assert first == again
    assert first.proxies.vless.id != other.proxies.vless.id
    assert first.proxies.trojan.password != other.proxies.trojan.password


def test_many_users_are_numbered() -> None:
    assert [user.email for user in make_users(2, ["in"], name="x")] == ["x0@demo", "x1@demo"]


def test_a_shadowsocks_2022_key_is_sixteen_bytes() -> None:
    assert len(base64.b64decode(ss2022_key(b"seed"))) == 16
