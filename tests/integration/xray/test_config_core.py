"""The rewritten samples in the real core: it takes them, its inbounds take users, and the domain guard works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pgnode.testing.ports import free_port
from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint
from pgnode.xray.config.accounts import accounts_of, client_json, user_message
from pgnode.xray.config.document import PLACEHOLDER_EMAIL, BaseConfig, parse_config, render
from pgnode.xray.process.unbindable import unbindable
from pgnode.xray.proto import handler_command_pb2 as commands

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SAMPLE_NAMES = ("panel-default", "wide", "balancer")
USER_ID = "5783a3e7-e373-51cd-8642-c83782b807c5"
START = "import sys, xray; xray.startFromJSON(sys.stdin.read())"


def parse(config: object, *, exclude: tuple[str, ...] = (), socket_path: str = "/run/x/api.sock") -> BaseConfig:
    return parse_config(json.dumps(config), exclude_inbounds=exclude, api_socket=socket_path, assets_dir=None)


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return document


def config(protocol: str = "vless", **more: Any) -> dict[str, Any]:
    settings = {"decryption": "none"}
    inbound = {"tag": "in", "listen": "127.0.0.1", "port": 20000, "protocol": protocol, "settings": settings}
    return {"inbounds": [inbound], "outbounds": [{"tag": "DIRECT", "protocol": "freedom"}]} | more


def user_with_everything(email: str, inbounds: list[str]) -> pb.User:
    proxies = pb.Proxy(
        vmess=pb.Vmess(id=USER_ID),
        vless=pb.Vless(id=USER_ID, flow="xtls-rprx-vision"),
        trojan=pb.Trojan(password="secret"),
        shadowsocks=pb.Shadowsocks(password="secret", method="chacha20-ietf-poly1305"),
        hysteria=pb.Hysteria(auth="secret"),
    )
    return pb.User(email=email, proxies=proxies, inbounds=inbounds)


def core_exit_code(text: str) -> int:
    """Start the core with an unbindable config: 255 = it took the config, 23 = it refused it."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", START], check=False, input=text, text=True, capture_output=True, timeout=60
    )
    return done.returncode


@pytest.mark.parametrize("name", SAMPLE_NAMES)
def test_the_core_accepts_the_samples_with_and_without_users(name: str) -> None:
    base = parse(sample(name), exclude=("Static clients",))
    user = user_with_everything("user@node", list(base.managed_inbounds))
    clients = {
        tag: [client_json(user.email, account)] for tag, account in accounts_of(user, base.managed_inbounds).items()
    }
    assert clients.keys() == base.managed_inbounds.keys()
    for rendered in (render(base, clients), render(base, {})):
        document = unbindable(json.loads(rendered))
        document["api"] = base.document["api"]
        assert core_exit_code(json.dumps(document)) == 255


def test_the_core_refuses_what_the_node_leaves_to_it() -> None:
    # Says that the exit code above means something.
    assert core_exit_code(json.dumps(unbindable(config("vlezz")))) == 23


@contextmanager
def running_core(base: BaseConfig, rendered: str) -> Iterator[grpc.Channel]:
    document = json.loads(rendered)
    for inbound in document["inbounds"]:
        if inbound["listen"].startswith("@"):
            # An abstract name is everybody's: another run of these tests may be going on.
            inbound["listen"] += f"-{os.getpid()}"
        else:
            inbound["listen"], inbound["port"] = "127.0.0.1", free_port()
    core = subprocess.Popen(
        [sys.executable, "-I", "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert core.stdin is not None
        core.stdin.write(json.dumps(document))
        core.stdin.close()
        with grpc.insecure_channel("unix:" + base.document["api"]["listen"]) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            yield channel
    finally:
        core.kill()
        core.wait(10)


def test_every_managed_inbound_takes_users_through_the_api() -> None:
    folder = tempfile.mkdtemp(prefix="pgn")
    try:
        base = parse(sample("wide"), exclude=("Static clients",), socket_path=folder + "/api.sock")
        user = user_with_everything("new@node", list(base.managed_inbounds))
        with running_core(base, render(base, {})) as channel:
            service = "/xray.app.proxyman.command.HandlerService/"
            alter = channel.unary_unary(
                service + "AlterInbound", commands.AlterInboundRequest.SerializeToString, lambda answer: answer
            )
            listed = channel.unary_unary(
                service + "GetInboundUsers",
                commands.GetInboundUserRequest.SerializeToString,
                commands.GetInboundUserResponse.FromString,
            )
            for tag, account in accounts_of(user, base.managed_inbounds).items():
                add = commands.AddUserOperation()
                add.user.ParseFromString(user_message(user.email, account))
                request = commands.AlterInboundRequest(tag=tag)
                request.operation.type = add.DESCRIPTOR.full_name
                request.operation.value = add.SerializeToString()
                alter(request, timeout=60)
                users = {
                    found.email: found for found in listed(commands.GetInboundUserRequest(tag=tag), timeout=60).users
                }
                placeholder = {PLACEHOLDER_EMAIL} if base.managed_inbounds[tag].is_shadowsocks_2022 else set()
                assert users.keys() == {"new@node"} | placeholder, tag
                if placeholder:
                    remove = commands.RemoveUserOperation(email=PLACEHOLDER_EMAIL)
                    request.operation.type = remove.DESCRIPTOR.full_name
                    request.operation.value = remove.SerializeToString()
                    alter(request, timeout=60)
                    left = listed(commands.GetInboundUserRequest(tag=tag), timeout=60).users
                    assert [found.email for found in left] == ["new@node"]
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("domain", "outbound"),
    [
        ("node.example", "DIRECT"),
        ("a" * 63 + ".example", "DIRECT"),
        (".".join(["a" * 62] * 4) + ".", "DIRECT"),
        ("a" * 64, "BLOCK"),
        ("x." + "a" * 64 + ".example", "BLOCK"),
        (".".join(["a" * 50] * 5), "BLOCK"),
    ],
    ids=["usual", "label 63", "length 252", "label 64", "inner label 64", "length 254"],
)
def test_the_core_routes_malformed_domains_to_the_blackhole(
    guarded_core: grpc.Channel, domain: str, outbound: str
) -> None:
    test_route = guarded_core.unary_unary("/xray.app.router.command.RoutingService/TestRoute", None, None)
    # TestRouteRequest.RoutingContext (1) with Network (2) = TCP and TargetDomain (7); the answer is a RoutingContext again.
    name = domain.encode()
    context = b"\x10\x02\x3a" + varint.encode(len(name)) + name
    answer = test_route(varint.field(1, context), timeout=60)
    tag = outbound.encode()
    assert answer.endswith(varint.field(12, tag))


@pytest.fixture(scope="module")
def guarded_core() -> Iterator[grpc.Channel]:
    folder = tempfile.mkdtemp(prefix="pgn")
    outbounds = [{"tag": "DIRECT", "protocol": "freedom"}, {"tag": "BLOCK", "protocol": "blackhole"}]
    routing = {"rules": [{"network": "tcp,udp", "outboundTag": "DIRECT"}]}
    base = parse(config(outbounds=outbounds, routing=routing), socket_path=folder + "/api.sock")
    try:
        with running_core(base, render(base, {})) as channel:
            yield channel
    finally:
        shutil.rmtree(folder)
