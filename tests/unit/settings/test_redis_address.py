"""Addresses of Redis: what is one, what it is made of, and that nothing is lost where settings are put into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.settings.redis_address import (
    PASSWORD_FILE,
    SENTINEL_PASSWORD,
    TAG,
    RedisKind,
    complete,
    has_credentials,
    is_cluster,
    parse,
    speaks_tls,
)


@pytest.mark.parametrize(
    ("url", "kind", "plain", "hosts", "master"),
    [
        ("redis://h:1/0?x=y", RedisKind.SERVER, "redis://h:1/0?x=y", (), ""),
        ("unix:///run/r.sock?db=3", RedisKind.SERVER, "unix:///run/r.sock?db=3", (), ""),
        (
            "redis+sentinel://a,b:2/main",
            RedisKind.SENTINEL,
            "redis://a:26379/0",
            (("a", 26379), ("b", 2)),
            "main",
        ),
        (
            "rediss+sentinel://me:p%40ss@[::1]:3,b/main/4?ssl_check_hostname=false",
            RedisKind.SENTINEL,
            "rediss://me:p%40ss@[::1]:3/4?ssl_check_hostname=false",
            (("::1", 3), ("b", 26379)),
            "main",
        ),
        ("redis+cluster://a:1,b", RedisKind.CLUSTER, "redis://a:1/0", (("a", 1), ("b", 6379)), ""),
        ("rediss+cluster://a/0", RedisKind.CLUSTER, "rediss://a:6379/0", (("a", 6379),), ""),
    ],
)
def test_an_address_is_taken_apart(
    url: str, kind: RedisKind, plain: str, hosts: tuple[tuple[str, int], ...], master: str
) -> None:
    found = parse(url)
    assert (found.kind, found.url, found.hosts, found.master) == (kind, plain, hosts, master)
    assert found.part(PASSWORD_FILE) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://x", "allowed is redis://HOST"),
        ("redis", "allowed is"),
        ("redis+other://a", "allowed is"),
        ("unix+sentinel:///x/y", "allowed is"),
        ("redis+sentinel://a:1", "the name of the master is missing"),
        ("redis+sentinel://a:1/name/x", "allowed is"),
        ("redis+sentinel://a:99999/name", "allowed is"),
        ("redis+sentinel:///name", "allowed is"),
        ("redis+cluster://a,,b", "allowed is"),
        ("redis+cluster://secret@[]", "allowed is"),
        ("redis+cluster://a/2", "the database 0 alone"),
        ("redis://h:1/abc", "allowed is redis://HOST"),
        ("rediss://u:secret@h/1/2", "allowed is redis://HOST"),
    ],
)
def test_what_is_none_is_refused_without_a_word_of_it(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(url)
    assert "secret" not in str(caught.value)


@given(
    st.sampled_from(
        ["redis://h", "redis://h/1?db=2", "unix:///x y", "redis+cluster://a,b", "redis+sentinel://a/m?x=1"]
    ),
    st.text(min_size=1),
    st.text(min_size=1),
)
def test_what_is_put_in_comes_out(url: str, password: str, path: str) -> None:
    whole = complete(url, {SENTINEL_PASSWORD: password, PASSWORD_FILE: path, "username": None, TAG: "p"})
    found = parse(whole)
    assert (found.part(SENTINEL_PASSWORD), found.part(PASSWORD_FILE), found.part(TAG)) == (password, path, "p")
    before = parse(url)
    assert (found.kind, found.hosts, found.master) == (before.kind, before.hosts, before.master)
    assert found.url == before.url


def test_nothing_set_changes_nothing() -> None:
    assert complete("redis://h?x=y", {"username": None}) == "redis://h?x=y"


def test_what_an_address_says_at_a_glance() -> None:
    assert has_credentials("redis://:x@h")
    assert has_credentials("redis://h?password=x")
    assert not has_credentials("redis://h/0?db=1")
    assert speaks_tls("rediss+cluster://a")
    assert not speaks_tls("redis://a")
    assert is_cluster("rediss+cluster://a")
    assert not is_cluster("redis+sentinel://a/cluster")
