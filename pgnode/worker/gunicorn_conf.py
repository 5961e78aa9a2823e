"""Gunicorn's configuration, as Python that Gunicorn runs: ``gunicorn -c file:….py``, at the start and at each reload.

Every name without an underscore is a setting of Gunicorn's. An operator's own file (GUNICORN_CONF) is laid over it at the end.
"""

from __future__ import annotations

import contextlib as _contextlib
import os as _os
import signal as _signal
import ssl as _ssl
import tempfile as _tempfile
from dataclasses import replace as _replace
from typing import Any as _Any

from pgnode.api.callers import AllowedCallers as _AllowedCallers
from pgnode.os_support.collector import spare_what_is_loaded as _spare_what_is_loaded
from pgnode.os_support.log_output import PROCESS as _LOG
from pgnode.os_support.malloc import keep_large_blocks_apart as _keep_large_blocks_apart
from pgnode.os_support.pdeath import die_with_parent as _die_with_parent
from pgnode.os_support.request_signals import keep_from_this_process as _keep_requests_from_this_process
from pgnode.settings.handover import READY_VARIABLE as _READY_VARIABLE
from pgnode.settings.handover import SOCKETS_VARIABLE as _SOCKETS_VARIABLE
from pgnode.settings.handover import runs_alone as _runs_alone
from pgnode.worker import gunicorn_compat as _gunicorn_compat
from pgnode.worker import http_parsers as _http_parsers
from pgnode.worker.asgi_worker import ConnectionLimits as _ConnectionLimits
from pgnode.worker.asgi_worker import worker_with as _worker_with
from pgnode.worker.certificate import live_context as _live_context
from pgnode.worker.certificate import served_files as _served_files
from pgnode.worker.gunicorn_log import GunicornLog as _GunicornLog
from pgnode.worker.gunicorn_settings import takes_proxy_protocol as _takes_proxy_protocol
from pgnode.worker.logging import name_process as _name_process
from pgnode.worker.logging import set_up_logging as _set_up_logging
from pgnode.worker.operator_file import operator_file as _operator_file
from pgnode.worker.settings_again import settings_again as _settings_again


def _tell(sentence: str) -> None:
    # Gunicorn has no log yet.
    _LOG.write(_LOG.entry("warning", f"pgnode: {sentence}", {}))


# Before Gunicorn makes its log: it keeps the stream that is there.
_set_up_logging("gunicorn")
_gunicorn_compat.check()
_gunicorn_compat.keep_workers_in_want_of_room()
_settings = _settings_again.load(_tell)

# The master reads this once: for its workers, too, which it forks; and the supervisor that started it is its parent.
_keep_large_blocks_apart()
if not _runs_alone():
    _die_with_parent(_signal.SIGKILL)
# The supervisor keeps it from its children; this is the one that it sends it to.
_signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGHUP])

_host = f"[{_settings.node_host}]" if ":" in _settings.node_host else _settings.node_host
_sockets = _os.environ.get(_SOCKETS_VARIABLE)
# Whoever started this master holds the sockets; one that was started by hand makes its own.
bind = (
    [f"fd://{_number}" for _number in _sockets.split(",")]
    if _sockets
    else [f"{_host}:{_port}" for _port in _settings.gunicorn_ports.values()]
)
wsgi_app = "pgnode.worker.app:application"
# The master imports the application once, and its workers share the memory. It connects to nothing before the lifespan.
preload_app = True
_limits = _replace(
    _ConnectionLimits(),
    headers_seconds=_settings.header_timeout_seconds,
    stall_seconds=_settings.stall_timeout_seconds,
    delivery_seconds=_settings.delivery_timeout_seconds,
)
worker_class = _worker_with(
    _limits,
    _AllowedCallers(_settings.caller_networks, _settings.local_hosts),
    most_per_address=_settings.max_connections_per_address,
)
workers = _settings.web_concurrency
proc_name = "pgnode"

# The panel's connection pool keeps connections for 15 s: closing earlier would reset its requests.
keepalive = 75
backlog = 4096
#: Seconds without a sign of life after which a worker is killed; looking and killing take some more.
timeout = 15
#: Seconds that calls under way get when a worker ends and others serve. When the node ends, the supervisor waits for less.
graceful_timeout = 12

asgi_loop = "uvloop"
asgi_lifespan = "on"
http_parser = _http_parsers.choose_parser(_settings.http_parser)
# A proxy in front that names its callers is for GUNICORN_CONF to say, and from which addresses: `proxy_allow_ips`.
proxy_protocol = "off"
# An answer to somebody who has gone helps nobody; a command under way has its own deadline.
asgi_disconnect_grace_period = 1

_files = _served_files(_settings)
certfile, keyfile = map(str, _files)

accesslog = None
errorlog = "-"
logger_class = _GunicornLog
# The supervisor leaves out what the level of the log does not show: it may be changed at any time.
loglevel = "info"
# Gunicorn would put a control socket into the home folder.
control_socket_disable = True
worker_tmp_dir = "/dev/shm"  # noqa: S108 - Gunicorn's heartbeat
if not _os.access(worker_tmp_dir, _os.W_OK | _os.X_OK):
    worker_tmp_dir = _tempfile.gettempdir() if _runs_alone() else str(_settings.run_dir)


def ssl_context(config: _Any, default_factory: _Any) -> _ssl.SSLContext:
    """Make the TLS settings of a listening socket; Gunicorn calls this in each worker's event loop, and here the master does.

    TLS 1.2 or later; nothing is negotiated by ALPN, since panels offer only h2 and then speak HTTP/1.1.

    Args:
        config: Gunicorn's configuration.
        default_factory: Makes a context from the certificate files.

    Returns:
        A context that follows the files.
    """

    def make() -> _ssl.SSLContext:
        context: _ssl.SSLContext = default_factory()
        context.minimum_version = _ssl.TLSVersion.TLSv1_2
        return context

    return _live_context(*_files, make, (config.ca_certs, config.cert_reqs, config.ciphers))


def on_starting(server: _Any) -> None:
    """Say once that requests are parsed by Gunicorn's own parser, where nobody asked for that."""
    if _takes_proxy_protocol(proxy_protocol):
        if _settings.http_parser == "fast":
            server.log.warning(
                "HTTP_PARSER=fast is not followed: GUNICORN_CONF sets proxy_protocol, which only Gunicorn's own parser knows"
            )
    elif http_parser == "python" and _settings.http_parser == "auto":
        server.log.warning("gunicorn_h1c is not installed: Gunicorn's own HTTP parser is used, which is slower")


def when_ready(server: _Any) -> None:
    """Load the rest, and keep the garbage collector away from what the workers share: it writes into what it looks at."""
    _http_parsers.load_for_workers(http_parser)
    on_reload(server)
    _spare_what_is_loaded()


def on_reload(server: _Any) -> None:
    """Make TLS settings that the workers share, so that callers who connect again are known to all of them."""
    # A worker makes its own, and tells what is wrong.
    with _contextlib.suppress(OSError):
        _gunicorn_compat.make_tls(server.cfg)


def post_fork(_server: _Any, _worker: _Any) -> None:
    """End each new worker with the master, also when that is killed; its lines in the log are its own, HUP is the master's.

    Args:
        _server: Gunicorn's arbiter.
        _worker: The worker, in its own process.
    """
    _die_with_parent(_signal.SIGKILL, _os.getppid())
    _keep_requests_from_this_process()
    _name_process("rest")


def post_worker_init(_worker: _Any) -> None:
    """Tell the supervisor that a worker of this master is there; those after the first tell nobody.

    Args:
        _worker: The worker, which has loaded the application.
    """
    number = _os.environ.get(_READY_VARIABLE)
    if number is not None:
        with _contextlib.suppress(OSError):
            _os.write(int(number), b".")


_say_ready = post_worker_init

if _settings.gunicorn_conf is not None:
    globals().update(_operator_file.run(_settings.gunicorn_conf, dict(globals()), _tell))
    if _takes_proxy_protocol(proxy_protocol):
        http_parser = "python"

    if post_worker_init is not _say_ready:
        _theirs = post_worker_init

        def post_worker_init(_worker: _Any) -> None:
            """Do what the operator wants, and what the supervisor waits for.

            Args:
                _worker: The worker.
            """
            _theirs(_worker)
            _say_ready(_worker)
