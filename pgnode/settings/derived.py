"""What follows from the settings: paths, ports, addresses. It needs nothing of the library that checks settings.

Workers have settings that were checked before (:mod:`pgnode.settings.handover`), and are smaller by 7 MB without that library.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from pgnode.settings import bus_password, redis_address
from pgnode.settings.checks import paths_in

#: Values that are shown shortened wherever settings are printed.
SECRET_FIELDS = frozenset({"api_key", "metrics_key", "redis_url", "redis_password", "redis_sentinel_password"})


class DerivedSettings:
    """The properties of :class:`pgnode.settings.Settings`, for whatever has its fields."""

    if TYPE_CHECKING:
        allowed_callers: str
        api_key_file: Path | None
        api_port: int
        grpc_port: int
        grpc_workers: int
        log_dir: Path | None
        log_paths: str
        max_body_mib: int
        metrics_host: str
        metrics_port: int | None
        node_host: str
        pass_environment: str
        redis_ca_file: Path | None
        redis_cert_file: Path | None
        redis_key_file: Path | None
        redis_password: str | None
        redis_password_file: Path | None
        redis_prefix: str
        redis_sentinel_password: str | None
        redis_sentinel_password_file: Path | None
        redis_sentinel_user: str | None
        redis_url: str | None
        redis_user: str | None
        service_port: int
        service_protocol: Literal["both", "rest", "grpc", "none"]
        ssl_cert_file: Path | None
        ssl_key_file: Path | None
        state_dir: Path
        xray_assets_path: Path | None

    @property
    def log_folder(self) -> Path:
        """The folder of log files that a config names."""
        return self.log_dir or self.state_dir / "logs"

    @property
    def allowed_log_paths(self) -> tuple[Path, ...]:
        """Other folders and files where they may be."""
        return paths_in(self.log_paths)

    @property
    def caller_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """What ALLOWED_CALLERS names; nothing: everybody may call."""
        return tuple(ipaddress.ip_network(entry) for entry in self.allowed_callers.split(",") if entry)

    @property
    def gunicorn_ports(self) -> dict[str, int]:
        """The ports that Gunicorn listens on, by the setting that names each: the only place that knows which."""
        if self.service_protocol == "none":
            return {}
        ports = {"API_PORT": self.api_port}
        if self.service_protocol != "grpc":
            ports = {"SERVICE_PORT": self.service_port, **ports}
        return ports

    @property
    def local_host(self) -> str:
        """The address under which this machine reaches the API."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.node_host, self.node_host)

    @property
    def local_hosts(self) -> tuple[str, ...]:
        """All addresses under which this machine may reach the API; IPv6 may be switched off where it is known."""
        return (self.local_host, "127.0.0.1") if self.node_host == "::" else (self.local_host,)

    @property
    def run_dir(self) -> Path:
        """Sockets, locks and records of running processes."""
        return self.state_dir / "run"

    @property
    def store_path(self) -> Path:
        """The node's durable state; only the supervisor writes it."""
        return self.state_dir / "state.db"

    @property
    def audit_file(self) -> Path:
        """Who changed what about the node, and when."""
        return self.state_dir / "audit.log"

    @property
    def assets_dir(self) -> Path:
        """The folder with geoip.dat and geosite.dat."""
        return self.xray_assets_path or self.state_dir / "assets"

    @property
    def key_file(self) -> Path:
        """The file with the API key, where API_KEY does not hold it."""
        return self.api_key_file or self.state_dir / "api_key"

    @property
    def cert_file(self) -> Path:
        """The API's certificate, PEM."""
        return self.ssl_cert_file or self.state_dir / "tls" / "cert.pem"

    @property
    def cert_key_file(self) -> Path:
        """The private key of :attr:`cert_file`, PEM."""
        return self.ssl_key_file or self.state_dir / "tls" / "key.pem"

    @property
    def served_pem(self) -> Path:
        """Key and certificate that the supervisor found fit to serve, for its workers."""
        return self.run_dir / "tls.pem"

    @property
    def core_socket(self) -> Path:
        """The core's API; only the supervisor talks to it."""
        return self.run_dir / "core.sock"

    @property
    def core_scratch_socket(self) -> Path:
        """The API of a core that only tells how it encodes a config."""
        return self.run_dir / "core.scratch.sock"

    @property
    def valkey_socket(self) -> Path:
        """The unix socket of the node's own Valkey."""
        return self.run_dir / "valkey.sock"

    @property
    def bus_url(self) -> str:
        """The address of Redis that workers and supervisor meet over, with all that is needed to connect."""
        if self.redis_url is not None:
            return redis_address.complete(
                self.redis_url,
                {
                    redis_address.TAG: self.redis_prefix if redis_address.is_cluster(self.redis_url) else None,
                    "username": self.redis_user,
                    "password": self.redis_password,
                    redis_address.PASSWORD_FILE: _text(self.redis_password_file),
                    "ssl_ca_certs": _text(self.redis_ca_file),
                    "ssl_certfile": _text(self.redis_cert_file),
                    "ssl_keyfile": _text(self.redis_key_file),
                    redis_address.SENTINEL_USER: self.redis_sentinel_user,
                    redis_address.SENTINEL_PASSWORD: self.redis_sentinel_password,
                    redis_address.SENTINEL_PASSWORD_FILE: _text(self.redis_sentinel_password_file),
                },
            )
        password = bus_password.read(self.run_dir)
        return f"unix://{f':{password}@' if password else ''}{quote(str(self.valkey_socket))}"

    @property
    def bus_prefix(self) -> str:
        """What every key in Redis begins with: in a cluster a hash tag, so that one server has all keys of a node."""
        tagged = self.redis_url is not None and redis_address.is_cluster(self.redis_url)
        return f"{{{self.redis_prefix}}}" if tagged else self.redis_prefix

    @property
    def max_body_bytes(self) -> int:
        """The largest message accepted, in bytes."""
        return self.max_body_mib * 1024 * 1024

    @property
    def grpc_worker_count(self) -> int:
        """The number of gRPC workers that run; 0 where no gRPC is served here."""
        return 0 if self.service_protocol in ("rest", "none") else self.grpc_workers

    @property
    def grpc_listen(self) -> tuple[str, int]:
        """The setting that names the port of gRPC, and the port."""
        return ("SERVICE_PORT", self.service_port) if self.service_protocol == "grpc" else ("GRPC_PORT", self.grpc_port)

    @property
    def ports(self) -> dict[str, tuple[str, int]]:
        """Every address and port that the node itself listens on, by the setting that names the port."""
        found = {name: (self.node_host, port) for name, port in self.gunicorn_ports.items()}
        if self.grpc_worker_count:
            name, port = self.grpc_listen
            found[name] = self.node_host, port
        if self.metrics_port is not None:
            found["METRICS_PORT"] = self.metrics_host, self.metrics_port
        return found

    @property
    def child_variables(self) -> frozenset[str]:
        """The environment variables that processes of the node may have besides the usual ones."""
        settings = {name.upper() for name in vars(self) if name not in SECRET_FIELDS}
        return frozenset(settings | set(self.pass_environment.split(",")))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
