"""From a user's message to its accounts, and sentences for users that cannot be had."""

from __future__ import annotations

import uuid

from pgnode.supervisor.users.decoding import (
    account_in,
    accounts_of_users,
    check_user,
    decode,
    refusal_of,
    tunnel_address,
)
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.users.models import INBOUNDS, TROJAN, VLESS, vless_user


def test_a_bad_user_is_named_with_the_cause() -> None:
    user = pb.User(email="x", inbounds=["vless"])
    user.proxies.vless.id = "not a uuid"
    refusal = refusal_of(user, INBOUNDS)
    assert refusal is not None
    assert str(refusal).startswith("x: ")
    assert "vless id is not a UUID" in str(refusal)
    assert str(refusal_of(pb.User(), INBOUNDS)) == "(empty e-mail): the e-mail is empty"


def test_a_user_that_was_fine_with_other_inbounds_has_no_accounts_here() -> None:
    user = vless_user("alice", 1)
    user.proxies.vless.id = "not a uuid"
    assert decode(user.SerializeToString(), INBOUNDS) == ("alice", {})
    assert decode(None, INBOUNDS) == ("", {})


def test_accounts_are_found_by_inbound() -> None:
    raw = vless_user("alice", 1).SerializeToString()
    assert account_in(raw, TROJAN) is None
    found = account_in(raw, VLESS)
    assert found is not None
    email, account = found
    assert (email, account.secret) == ("alice", str(uuid.UUID(int=2)))
    assert accounts_of_users({"alice": raw}, ["alice", "nobody"], INBOUNDS) == {"vless": {"alice": found}, "trojan": {}}
    assert check_user(vless_user("alice", 1), INBOUNDS) == {"vless": account}


def test_an_address_inside_the_tunnel() -> None:
    user = pb.User(email="a", proxies=pb.Proxy(wireguard=pb.Wireguard(peer_ips=["10.0.0.0/24", "x", "fd00::2"])))
    assert tunnel_address(user.SerializeToString()) == "fd00::2"
    assert (tunnel_address(None), tunnel_address(pb.User(email="a").SerializeToString())) == ("", "")
