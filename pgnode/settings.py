"""Every setting of the node: type, default, environment variable and one sentence; nothing is read at import time.

A setting's environment variable is its field name in capitals. A ``.env`` file in the working folder is read too; the
environment wins. ``load()`` turns a wrong value into a :class:`~pgnode.errors.SettingsError` that names the variable,
the value and what is allowed. docs/configuration.md is generated from this file (``python -m pgnode.settings``).
"""

from __future__ import annotations

import ipaddress
import os
import shlex
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pgnode.errors import SettingsError

#: Longest path of a unix socket that every Linux accepts (sun_path holds 108 bytes with the final NUL).
MAX_SOCKET_PATH_BYTES = 107

#: Values that are shown shortened wherever settings are printed.
SECRET_FIELDS = frozenset({"api_key", "redis_url"})


def _uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value.strip()))
    except ValueError:
        raise ValueError(
            "allowed is a UUID such as 123e4567-e89b-42d3-a456-426614174000; "
            "unset it and the node makes a key of its own"
        ) from None


def _host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip().strip("[]")))
    except ValueError:
        raise ValueError("allowed is an IPv4 or IPv6 address to listen on, such as 0.0.0.0, :: or 127.0.0.1") from None


def _redis_url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("allowed is an address that begins with redis://, rediss:// or unix://")
    return value


def _web_url(value: str) -> str:
    if not value.startswith(("https://", "http://")) or any(c.isspace() for c in value):
        raise ValueError("allowed is an address that begins with https:// or http://")
    return value.rstrip("/")


def _command(value: str) -> str:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"allowed is a command with its arguments, quoted as for a shell ({error})") from None
    if not words:
        raise ValueError("allowed is a command with its arguments; unset it if there is none")
    return value


def _existing_file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError("allowed is the path of an existing file")
    return value


def _existing_folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError("allowed is the path of an existing folder")
    return value


def _executable(value: Path) -> Path:
    if not (value.is_file() and os.access(value, os.X_OK)):
        raise ValueError("allowed is the path of an executable file; unset it to use the embedded core")
    return value


def _prefix(value: str) -> str:
    if not value or any(c.isspace() or c in "{}*?" for c in value):
        raise ValueError("allowed is a word without blanks, braces and wildcards")
    return value


def default_state_dir() -> Path:
    """``$XDG_STATE_HOME/pgnode``, else ``~/.local/state/pgnode``."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "pgnode"


Port = Annotated[int, Field(ge=1, le=65535)]
OptionalText = BeforeValidator(lambda value: None if value == "" else value)
ExistingFile = Annotated[Path, AfterValidator(_existing_file)]


class Settings(BaseSettings):
    """All settings, checked."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    node_host: Annotated[str, AfterValidator(_host)] = Field(
        "0.0.0.0", description="Address the API listens on, IPv4 or IPv6."
    )
    service_port: Port = Field(62050, description="Port of the REST API; of gRPC when SERVICE_PROTOCOL is `grpc`.")
    api_port: Port = Field(
        62051, description="Port of the maintenance API (JSON): updates of core, geo files and node."
    )
    service_protocol: Literal["both", "rest", "grpc"] = Field(
        "both",
        description="What is served: `both` (REST on SERVICE_PORT, gRPC on GRPC_PORT), `rest`, or `grpc` "
        "(on SERVICE_PORT).",
    )
    grpc_port: Port = Field(62052, description="Port of gRPC when SERVICE_PROTOCOL is `both`.")
    grpc_workers: Annotated[int, Field(ge=0, le=64)] = Field(
        1, description="Number of gRPC workers; 0 serves no gRPC, as SERVICE_PROTOCOL=rest does."
    )
    grpc_max_calls: Annotated[int, Field(ge=8, le=100_000)] = Field(
        1000, description="Calls that one gRPC worker has under way at most; further ones get RESOURCE_EXHAUSTED."
    )
    grpc_max_streams: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="Log viewers of one gRPC worker at most; further ones get RESOURCE_EXHAUSTED."
    )
    grpc_reflection: bool = Field(False, description="Whether gRPC's reflection service answers callers with the key.")
    api_key: Annotated[Annotated[str, AfterValidator(_uuid)] | None, OptionalText] = Field(
        None, description="Key that callers must send, a UUID. Unset: the key in API_KEY_FILE, made if it is missing."
    )
    api_key_file: Annotated[Path | None, OptionalText] = Field(
        None, description="File that holds the key when API_KEY is unset. Unset: `api_key` in STATE_DIR."
    )
    ssl_cert_file: Annotated[Path | None, OptionalText] = Field(
        None,
        description="Certificate of the API, PEM. Unset: a self-signed one in STATE_DIR/tls, made if it is missing.",
    )
    ssl_key_file: Annotated[Path | None, OptionalText] = Field(
        None,
        description="Private key of SSL_CERT_FILE, PEM. Without it SSL_CERT_FILE is taken for OpenSSL's list of CAs "
        "and left alone.",
    )
    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="Folder for everything the node keeps: key, certificate, store, sockets. Made with mode 0700.",
    )
    redis_url: Annotated[Annotated[str, AfterValidator(_redis_url)] | None, OptionalText] = Field(
        None,
        description="Redis or Valkey that workers and supervisor meet over. Unset: a Valkey of the node's own.",
    )
    redis_prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        "pgnode", description="Prefix of every key in Redis; give each node its own where several share one Redis."
    )
    web_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(2, description="Number of REST workers.")
    gunicorn_conf: Annotated[ExistingFile | None, OptionalText] = Field(
        None, description="A Gunicorn configuration file (Python) laid over the node's own."
    )
    max_body_mib: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="Largest message accepted, in MiB.")
    xray_executable_path: Annotated[Annotated[Path, AfterValidator(_executable)] | None, OptionalText] = Field(
        None, description="An Xray executable to run as the core. Unset: the embedded core (PyPI `Xray-core`)."
    )
    xray_assets_path: Annotated[Annotated[Path, AfterValidator(_existing_folder)] | None, OptionalText] = Field(
        None, description="Folder with geoip.dat and geosite.dat. Unset: `assets` in STATE_DIR."
    )
    core_releases_url: Annotated[str, AfterValidator(_web_url)] = Field(
        "https://github.com/XTLS/Xray-core/releases",
        description="Where core updates come from: an address with the layout of GitHub releases.",
    )
    geofiles_iran_url: Annotated[str, AfterValidator(_web_url)] = Field(
        "https://github.com/Chocolate4U/Iran-v2ray-rules/releases/latest/download",
        description="Address of the folder with geoip.dat and geosite.dat of the region `iran`.",
    )
    geofiles_china_url: Annotated[str, AfterValidator(_web_url)] = Field(
        "https://github.com/Loyalsoldier/v2ray-rules-dat/releases/latest/download",
        description="The same for the region `china`.",
    )
    geofiles_russia_url: Annotated[str, AfterValidator(_web_url)] = Field(
        "https://github.com/runetfreedom/russia-v2ray-rules-dat/releases/latest/download",
        description="The same for the region `russia`.",
    )
    update_command: Annotated[Annotated[str, AfterValidator(_command)] | None, OptionalText] = Field(
        None,
        description="Command that updates this installation, for `POST /node/update`; split like a shell would, but run "
        "without one. Unset: such calls answer 501.",
    )
    maintenance_timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        290.0, description="Seconds that a maintenance job may prepare, or UPDATE_COMMAND run; panels wait 330."
    )
    download_timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        240.0, description="Seconds that one download may take."
    )
    download_max_mib: Annotated[int, Field(ge=1, le=4096)] = Field(
        128, description="Largest file that is downloaded or unpacked, in MiB."
    )
    generated_config_path: Annotated[Path | None, OptionalText] = Field(
        None,
        description="File (or folder, for `config.json` in it) that gets a copy of the core's config at every start.",
    )
    log_buffer_size: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        10_000, description="Log lines kept for viewers in the store."
    )
    startup_log_tail_size: Annotated[int, Field(ge=1, le=1000)] = Field(
        20,
        description="Last lines of the core kept for the error of a failed start and replayed to a new viewer.",
    )
    stats_update_interval_seconds: Annotated[float, Field(ge=0.2, le=3600)] = Field(
        5.0, description="Seconds between two readings of the core's counters."
    )
    core_start_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        30.0, description="Seconds within which a core must answer after its start."
    )
    core_call_timeout_seconds: Annotated[float, Field(ge=0.5, le=120)] = Field(
        5.0, description="Seconds that one call to the core may take."
    )
    write_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        30.0, description="Seconds within which a change of users, or a start, is answered."
    )
    header_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        15.0, description="Seconds within which a connection must have sent a request's headers."
    )
    body_timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        60.0, description="Seconds within which a request's body must have arrived."
    )
    stop_linger_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        30.0,
        description="Seconds that the core lives on after a stop, so that a start within them drops no connection; "
        "0 ends it at once.",
    )
    keep_alive_action: Literal["none", "stop"] = Field(
        "none",
        description="What to do when the panel has not called for the time that it named at the start (keep_alive): "
        "nothing but say so, or stop.",
    )
    delivery_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        30.0,
        description="Seconds within which a caller must have received statistics that it read with reset; those that take "
        "longer are broken off and owed again.",
    )
    debug: bool = Field(False, description="More of the node's own log, and the core's log level as the panel set it.")

    @property
    def gunicorn_ports(self) -> dict[str, int]:
        """The ports that Gunicorn listens on, by the setting that names each: the one place that knows which."""
        ports = {"API_PORT": self.api_port}
        if self.service_protocol != "grpc":
            ports = {"SERVICE_PORT": self.service_port, **ports}
        return ports

    @property
    def run_dir(self) -> Path:
        """Sockets, locks and records of running processes."""
        return self.state_dir / "run"

    @property
    def assets_dir(self) -> Path:
        return self.xray_assets_path or self.state_dir / "assets"

    @property
    def key_file(self) -> Path:
        return self.api_key_file or self.state_dir / "api_key"

    @property
    def cert_file(self) -> Path:
        return self.ssl_cert_file or self.state_dir / "tls" / "cert.pem"

    @property
    def cert_key_file(self) -> Path:
        return self.ssl_key_file or self.state_dir / "tls" / "key.pem"

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
        return self.run_dir / "valkey.sock"

    @property
    def bus_url(self) -> str:
        return self.redis_url or f"unix://{self.valkey_socket}"

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mib * 1024 * 1024

    @property
    def grpc_worker_count(self) -> int:
        return 0 if self.service_protocol == "rest" else self.grpc_workers

    @property
    def grpc_listen(self) -> tuple[str, int]:
        """The port that gRPC is served on, after the name of the setting it comes from."""
        return ("SERVICE_PORT", self.service_port) if self.service_protocol == "grpc" else ("GRPC_PORT", self.grpc_port)


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment and ``.env``; ``overrides`` win. Raises SettingsError."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(dict(item)) for item in error.errors())) from None
    settings = _certificate_files(settings)
    _check_protocols(settings)
    _different_ports(settings)
    absolute = settings.state_dir.expanduser().absolute()
    longest = absolute / "run" / "core.scratch.sock"
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise SettingsError(
            f"STATE_DIR={absolute} is too long: paths of unix sockets in it may have {MAX_SOCKET_PATH_BYTES} bytes "
            "at most; choose a shorter folder"
        )
    return settings.model_copy(update={"state_dir": absolute})


def read_api_key(settings: Settings) -> str:
    """The key that callers must send, as the supervisor settled it. Raises SettingsError when there is none."""
    if settings.api_key is not None:
        return settings.api_key
    try:
        return _uuid(settings.key_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"no API key in {settings.key_file}: {error}") from None


def _check_protocols(settings: Settings) -> None:
    if settings.service_protocol == "grpc" and settings.grpc_workers == 0:
        raise SettingsError(
            "GRPC_WORKERS=0 is not allowed: with SERVICE_PROTOCOL=grpc nothing would be served; allowed is 1 or more"
        )


def _different_ports(settings: Settings) -> None:
    ports = dict(settings.gunicorn_ports)
    if settings.grpc_worker_count:
        name, port = settings.grpc_listen
        ports[name] = port
    known: dict[int, str] = {}
    for name, port in ports.items():
        if port in known:
            raise SettingsError(f"{name}={port} is not allowed: {known[port]} is the same; give each a port of its own")
        known[port] = name


def _certificate_files(settings: Settings) -> Settings:
    """SSL_CERT_FILE and SSL_KEY_FILE, as a pair of existing files or not at all."""
    if settings.ssl_key_file is None:
        # OpenSSL reads SSL_CERT_FILE as its list of trusted CAs, and many machines set it for that.
        return settings.model_copy(update={"ssl_cert_file": None})
    if settings.ssl_cert_file is None:
        raise SettingsError(
            "SSL_CERT_FILE is not set but SSL_KEY_FILE is: set both, or neither for a certificate of the node's own"
        )
    for name, path in (("SSL_CERT_FILE", settings.ssl_cert_file), ("SSL_KEY_FILE", settings.ssl_key_file)):
        if not path.is_file():
            raise SettingsError(f"{name}={path} is not allowed: there is no such file; give the path of a PEM file")
    return settings


def _sentence(item: Mapping[str, Any]) -> str:
    field = str(item["loc"][0]) if item["loc"] else "?"
    value = item.get("input")
    shown = shorten(str(value)) if field in SECRET_FIELDS else str(value)
    reason = str(item["msg"]).removeprefix("Value error, ")
    return f"{field.upper()}={shown} is not allowed: {reason[:1].lower()}{reason[1:]}"


def shorten(secret: str) -> str:
    """A secret as it may be printed: its first four characters."""
    return f"{secret[:4]}…" if len(secret) > 4 else "…"


_DOC_HEAD = """# Configuration

Every setting is an environment variable; a `.env` file in the working folder is read too, and the environment wins.
A wrong value ends the start with a sentence that names the variable, the value and what is allowed.
This page is generated: `make docs`.

| variable | type | default | meaning |
| --- | --- | --- | --- |
"""

_DOC_TAIL = """
## Exit codes of `pgnode run`

| code | meaning |
| --- | --- |
| 0 | ended on SIGTERM or SIGINT |
| 1 | an error that has no code of its own |
| 2 | a setting has a value that is not allowed, or a dependency a version that is not known to work |
| 3 | another node holds the state folder |
| 4 | a port that the node wants to listen on is in use |
| 5 | a process that the node cannot do without keeps failing |
| 130 | ended at once on a second signal |
"""


def markdown() -> str:
    """docs/configuration.md."""
    rows = []
    for name, field in Settings.model_fields.items():
        schema = Settings.model_json_schema()["properties"][name]
        options = schema.get("anyOf", [schema])
        kinds = [
            str(option.get("format", option.get("type", ""))) for option in options if option.get("type") != "null"
        ]
        kind = ", ".join(f'"{v}"' for v in schema["enum"]) if "enum" in schema else " or ".join(kinds)
        if "const" in schema:
            kind = f'"{schema["const"]}"'
        if name == "state_dir":
            default = "`$XDG_STATE_HOME/pgnode` or `~/.local/state/pgnode`"
        elif field.default is None:
            default = "unset"
        else:
            default = f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
        rows.append(f"| `{name.upper()}` | {kind} | {default} | {field.description} |")
    return _DOC_HEAD + "\n".join(rows) + "\n" + _DOC_TAIL


if __name__ == "__main__":
    sys.stdout.write(markdown())
