"""Gunicorn's configuration as Gunicorn reads it, from the node's settings and with an operator's file laid over it."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from gunicorn.config import Config

from pgnode.errors import DependencyError
from pgnode.os_support import streams
from pgnode.os_support.request_signals import REQUESTS, kept_from_children
from pgnode.settings.handover import READY_VARIABLE, SOCKETS_VARIABLE
from pgnode.worker.asgi_worker import NodeWorker
from pgnode.worker.http_parsers import choose_parser
from tests.support.certificates import make_certificate

NAME = "pgnode.worker.gunicorn_conf"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    cert_file, key_file = make_certificate(tmp_path, ["localhost"], ["127.0.0.1"])
    for name, value in {
        "STATE_DIR": tmp_path / "state",
        "SSL_CERT_FILE": cert_file,
        "SSL_KEY_FILE": key_file,
        "NODE_HOST": "127.0.0.1",
        "HEADER_TIMEOUT_SECONDS": 7,
        "DELIVERY_TIMEOUT_SECONDS": 9,
        "STALL_TIMEOUT_SECONDS": 8,
    }.items():
        monkeypatch.setenv(name, str(value))
    # What it does to the process that reads it is the master's alone.
    with (
        mock.patch("pgnode.os_support.pdeath.die_with_parent") as dies,
        mock.patch("pgnode.os_support.malloc.keep_large_blocks_apart") as apart,
    ):
        sys.modules.pop(NAME, None)
        yield monkeypatch
        sys.modules.pop(NAME, None)
        assert dies.called == apart.called


def read() -> Any:
    return importlib.import_module(NAME)


def read_again() -> Any:
    """Read it as Gunicorn does at a reload."""
    sys.modules.pop(NAME, None)
    return read()


def settings_of(module: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "annotations"}


def test_gunicorn_takes_every_setting(environment: pytest.MonkeyPatch) -> None:
    config = Config()
    for name, value in settings_of(read()).items():
        config.set(name, value)
    assert config.address == [("127.0.0.1", 62050), ("127.0.0.1", 62051)]
    assert issubclass(config.worker_class, NodeWorker)
    assert config.worker_class_str == "NodeWorker"
    assert config.worker_class.limits.headers_seconds == 7
    assert config.worker_class.limits.delivery_seconds == 9
    assert config.worker_class.limits.stall_seconds == 8
    assert config.is_ssl
    assert (config.keepalive, config.asgi_loop) == (75, "uvloop")
    assert config.http_parser == choose_parser("auto")


@pytest.mark.parametrize(("wanted", "told"), [("auto", True), ("python", False)])
def test_a_parser_that_is_slower_is_said_once(environment: pytest.MonkeyPatch, wanted: str, told: bool) -> None:
    environment.setenv("HTTP_PARSER", wanted)
    with mock.patch("pgnode.worker.http_parsers.choose_parser", return_value="python"):
        module = read()
    server = mock.Mock()
    module.on_starting(server)
    assert module.http_parser == "python"
    assert server.log.warning.called is told


@pytest.mark.parametrize(("wanted", "told"), [("auto", False), ("python", False), ("fast", True)])
def test_only_gunicorns_own_parser_takes_what_a_proxy_says(
    environment: pytest.MonkeyPatch, tmp_path: Path, wanted: str, told: bool
) -> None:
    overlay = tmp_path / "mine.py"
    overlay.write_text("proxy_protocol = 'v2'\nproxy_allow_ips = '192.0.2.1'\n")
    environment.setenv("GUNICORN_CONF", str(overlay))
    environment.setenv("HTTP_PARSER", wanted)
    with mock.patch("pgnode.worker.http_parsers.choose_parser", return_value=wanted):
        module = read()
    server = mock.Mock()
    module.on_starting(server)
    assert (module.http_parser, module.proxy_protocol, module.proxy_allow_ips) == ("python", "v2", "192.0.2.1")
    assert server.log.warning.called is told


def test_addresses_of_ip_version_6_are_bracketed(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NODE_HOST", "::1")
    assert read().bind[0] == "[::1]:62050"


def test_an_operators_file_is_laid_over_it(
    environment: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that cannot be used any more at a reload changes nothing, and is told."""
    overlay = tmp_path / "mine.py"
    overlay.write_text("workers = workers + 5\nthreads = 3\n")
    environment.setenv("GUNICORN_CONF", str(overlay))
    module = read()
    assert (module.workers, module.threads) == (7, 3)
    overlay.write_text("workers = 9\n")
    assert read_again().workers == 9
    overlay.write_text("workers = nine\n")
    assert read_again().workers == 9
    streams.drain()
    assert f"pgnode: GUNICORN_CONF={overlay}: it failed with NameError" in capfd.readouterr().err


def test_what_is_shared_is_left_alone_by_the_garbage_collector(environment: pytest.MonkeyPatch) -> None:
    module = read()
    try:
        module.when_ready(mock.Mock(cfg=mock.Mock(is_ssl=False)))
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


async def test_tls_from_version_1_2_on_and_nothing_negotiated(environment: pytest.MonkeyPatch) -> None:
    module = read()

    def default_factory() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(module.certfile, module.keyfile)
        return context

    config = mock.Mock(ca_certs=None, cert_reqs=0, ciphers=None)
    assert module.ssl_context(config, default_factory).sni_callback is not None
    with mock.patch("pgnode.worker.gunicorn_conf._live_context", side_effect=lambda _cert, _key, make, _how: make()):
        assert module.ssl_context(config, default_factory).minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_master_makes_tls_settings_for_all_its_workers(environment: pytest.MonkeyPatch) -> None:
    module = read()
    server = mock.Mock(cfg=mock.Mock(is_ssl=True))
    made = server.cfg.ssl_context
    module.on_reload(server)
    assert made.call_count == 1
    made.side_effect = OSError
    module.on_reload(server)
    assert made.call_count == 2, "a worker tells what is wrong"


def test_a_worker_ends_with_its_master_and_by_no_signal_that_is_for_it(environment: pytest.MonkeyPatch) -> None:
    # As the supervisor starts the master.
    with kept_from_children():
        module = read()
        assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "it is told to reload by that"
        with mock.patch.object(module, "_die_with_parent") as dies:
            module.post_fork(None, None)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= set(REQUESTS)
    assert dies.call_count == 1
    assert len(dies.call_args.args) == 2


def test_a_version_that_is_not_known_is_refused(environment: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    with (
        mock.patch("importlib.metadata.version", side_effect=lambda n: "99" if n == "gunicorn" else real(n)),
        pytest.raises(DependencyError, match="gunicorn 99"),
    ):
        read()


def test_it_listens_on_what_the_supervisor_holds(environment: pytest.MonkeyPatch) -> None:
    environment.setenv(SOCKETS_VARIABLE, "8,9")
    config = Config()
    config.set("bind", read().bind)
    assert config.address == [8, 9]


@pytest.mark.parametrize("theirs", [False, True])
def test_a_worker_tells_the_supervisor_that_it_is_there(
    environment: pytest.MonkeyPatch, tmp_path: Path, theirs: bool
) -> None:
    called = tmp_path / "called"
    if theirs:
        conf = tmp_path / "conf.py"
        conf.write_text(f"def post_worker_init(worker):\n    open({str(called)!r}, 'w').close()\n")
        environment.setenv("GUNICORN_CONF", str(conf))
    module = read()
    module.post_worker_init(None)
    reader, writer = os.pipe()
    environment.setenv(READY_VARIABLE, str(writer))
    module.post_worker_init(None)
    assert os.read(reader, 10) == b"."
    os.close(reader)
    module.post_worker_init(None)
    os.close(writer)
    assert called.exists() is theirs


def test_a_master_of_its_own_ends_with_nobody_and_needs_no_folder(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(os, "access", lambda _path, _mode: False)
    assert read().worker_tmp_dir.endswith("/state/run")
    with (
        mock.patch("pgnode.settings.handover.runs_alone", return_value=True),
        mock.patch("pgnode.os_support.pdeath.die_with_parent") as dies,
    ):
        assert read_again().worker_tmp_dir == tempfile.gettempdir()
        assert not dies.called
