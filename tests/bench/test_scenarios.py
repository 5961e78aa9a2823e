"""The registry, and the pure parts of the scenarios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from bench.bare_app import build, write_answers
from bench.load import LoadResult, Requests, summarize
from bench.load_process import read_requests
from bench.registry import Bench, scenario, scenarios
from bench.scenarios import full, sync
from bench.servers import moved
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb


def test_every_file_is_a_scenario() -> None:
    assert {"reads", "sync", "full", "start", "grpc", "traffic", "footprint"} <= set(scenarios())
    assert all(item.title and item.timeout_seconds > 0 for item in scenarios().values())


def test_a_name_is_given_once() -> None:
    scenarios()
    with pytest.raises(ValueError, match="'reads'"):
        scenario("reads", "again")(full.full)


def test_requests_reach_the_load_process_as_they_are() -> None:
    requests = [b"GET / HTTP/1.1\r\n\r\n", b"", bytes(range(256)) * 300]
    with Requests(requests) as kept:
        assert kept.count == 3
        assert read_requests(str(kept.path)) == requests
    assert not kept.path.exists()


def result(per_second: float, *, refused: int = 0, broken: int = 0) -> LoadResult:
    return LoadResult(
        answers=round(per_second * 2),
        seconds=2.0,
        p50_ms=1.0,
        p99_ms=per_second / 10,
        refused=refused,
        first_refusal="503 away" if refused else "",
        broken=broken,
        sent=1,
    )


def test_rounds_are_summed_up_by_their_medians() -> None:
    summary = summarize([result(100), result(900), result(300)])
    assert (summary.per_second, summary.p99_ms, summary.faults) == (300, 30, "")


def test_faults_are_told() -> None:
    summary = summarize([result(1), result(1, refused=2), result(1, refused=1, broken=4)])
    assert summary.faults == "3 refused, first: 503 away, 4 connections broke"


def test_bare_app_answers_what_was_written(tmp_path: Path) -> None:
    write_answers(tmp_path, {"/0": b"zero", "/1": b""})
    client = testing.TestClient(build(tmp_path))
    assert client.simulate_get("/0").content == b"zero"
    assert client.simulate_get("/1").content == b""
    assert client.simulate_get("/2").status_code == 404


def test_moved_config_shares_nothing_with_the_core_it_was_made_for() -> None:
    config: dict[str, Any] = {
        "api": {"tag": "api", "listen": "/a"},
        "inbounds": [{"port": 1, "tag": "x"}, {"listen": "/b", "tag": "y"}],
    }
    found = moved(config, Path("/c"))
    assert found["api"] == {"tag": "api", "listen": "/c"}
    assert found["inbounds"][0]["port"] != 1
    assert found["inbounds"][1] == config["inbounds"][1]


@pytest.mark.parametrize("share", full.SHARES)
def test_a_full_set_changes_just_its_share(share: float) -> None:
    users = make_users(200, ["A"])
    before = {user.email: user.SerializeToString() for user in users}
    sent = pb.Users.FromString(full.encoded_set(users, share, "new")).users
    assert [user.email for user in sent] == list(before)
    changed = [user.email for user in sent if user.SerializeToString() != before[user.email]]
    assert len(changed) == share * 200
    assert not set(changed) & set(list(before)[: full.HELD])


def test_every_single_sync_changes_a_key() -> None:
    users = sync.two_passes("one", ["A"])
    assert len({user.email for user in users}) == sync.USERS
    known: dict[str, str] = {}
    for user in users + users:
        assert known.get(user.email) != user.proxies.vless.id
        known[user.email] = user.proxies.vless.id


def test_bench_says_nothing_unless_told() -> None:
    Bench().say("anything")
    assert Bench().facts == {}
