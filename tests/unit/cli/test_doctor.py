"""``pgnode doctor`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from pgnode.cli import main
from pgnode.cli.doctor import check_redis
from pgnode.settings import load
from tests.support.valkey import TestValkey


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    for name in ("SERVICE_PORT", "API_PORT", "GRPC_PORT"):
        monkeypatch.setenv(name, {"SERVICE_PORT": "23456", "API_PORT": "23457", "GRPC_PORT": "23458"}[name])


def test_a_folder_without_a_node(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["doctor", "--state-dir", str(tmp_path / "none")])
    assert f"the node with {tmp_path}/none is down" in " ".join(found.output.split())
    assert "warning" in found.output.splitlines()[-1]


def test_programs_get_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    found = CliRunner().invoke(main, ["doctor", "--json", "--state-dir", str(tmp_path)])
    said = json.loads(found.output)
    assert (found.exit_code, said["well"]) == (4, False)
    assert said["findings"][-1]["text"].startswith("Redis at redis://:…@127.0.0.1:1/0: ")
    assert "hunter2" not in found.output


async def test_a_redis_that_evicts_is_told(valkey: TestValkey, tmp_path: Path) -> None:
    settings = load(redis_url=valkey.url, state_dir=str(tmp_path))
    [found] = await check_redis(settings.bus_url, 30, settings)
    assert found.level == "ok"
    client = Redis.from_url(valkey.url)
    await client.config_set("maxmemory", "100mb")
    await client.config_set("maxmemory-policy", "allkeys-lru")
    [found] = await check_redis(settings.bus_url, 30, settings)
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", "0")
    await client.aclose()
    assert (found.level, found.do) == ("warn", "set maxmemory-policy to noeviction or volatile-ttl")
    [found] = await check_redis(settings.bus_url, -1)
    assert "it did not answer within -1 s" in found.text


async def test_what_certainly_keeps_a_node_from_its_start_is_told(valkey: TestValkey, tmp_path: Path) -> None:
    settings = load(redis_url=valkey.url, redis_user="nobody", redis_password="hunter2", state_dir=str(tmp_path))
    [found] = await check_redis(settings.bus_url, 30, settings)
    assert found.level == "fail"
    assert found.text == f"Redis at REDIS_URL={valkey.url} refuses user or password"
    assert found.do.startswith("correct REDIS_USER")
