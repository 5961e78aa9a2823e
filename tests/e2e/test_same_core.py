"""Changes for which no core has to go: the log, and files that were renewed under an unchanged config."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.e2e.conftest import FAST
from tests.support.certificates import make_certificate
from tests.support.node_state import node_status
from tests.support.processes import core_pid
from tests.support.said import said


def served(port: int) -> bytes:
    """The certificate that is served on a port."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=30.0))


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_renewed_certificate_is_served_and_nobody_else_dropped(
    target: Target, tmp_path: Path, stopped: bool
) -> None:
    certificate, key = make_certificate(tmp_path, ["node.example"], [])
    files = {"certificateFile": str(certificate), "keyFile": str(key)}
    stream = {"security": "tls", "tlsSettings": {"certificates": [files]}}
    config = make_config([make_inbound("VLESS", "vless"), make_inbound("TLS", "vless", stream=stream)])
    users = [make_user("holder@e2e", ["VLESS", "TLS"])]
    port = config["inbounds"][1]["port"]
    async with (
        NodeProcess(env={**FAST, "STOP_LINGER_SECONDS": "60"}) as node,
        node.panel() as panel,
        ClientCore([link(config["inbounds"][0], users[0], name="VLESS")], target) as client,
    ):
        await panel.start(config, users)
        core, before = core_pid(node), served(port)
        async with client.hold("VLESS") as transfer:
            make_certificate(tmp_path, ["node.example"], [])
            if stopped:
                await panel.stop()
            await panel.start(config, users)
            await transfer.wait_rounds(3)
        transfer.check()
        assert core_pid(node) == core
        assert served(port) == ssl.PEM_cert_to_DER_cert(certificate.read_text()) != before
        await said(node, "strategy='hot change'", "cert.pem changed")


async def test_a_change_of_the_log_alone_drops_nobody(target: Target) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    users = [make_user("holder@e2e", ["VLESS"])]
    async with (
        NodeProcess(env=FAST) as node,
        node.panel() as panel,
        ClientCore([link(config["inbounds"][0], users[0], name="VLESS")], target) as client,
    ):
        await panel.start(config, users)
        core = core_pid(node)
        async with client.hold("VLESS") as transfer:
            await panel.start({**config, "log": {"loglevel": "error"}}, users)
            assert (await node_status(node)).waiting == ""
            await panel.start({**config, "log": {"loglevel": "debug"}}, users)
            assert "level debug" in (await node_status(node)).waiting
            await transfer.wait_rounds(3)
        transfer.check()
        assert core_pid(node) == core
        await said(node, "waits for the next start of the core")
        await panel.stop()
        await panel.start({**config, "log": {"loglevel": "debug"}}, users)
        assert (await node_status(node)).waiting == ""
