"""Every setting of the node: type, default, environment variable and one sentence; nothing is read at import time.

A setting's environment variable is its field name in capitals. docs/configuration.md is made from this declaration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pgnode.settings.checks import default_state_dir
from pgnode.settings.derived import DerivedSettings
from pgnode.settings.env_file import ENV_FILE
from pgnode.settings.value_types import (
    Callers,
    CertNames,
    Command,
    DnsServers,
    Executable,
    ExistingFolder,
    GunicornFile,
    KeyPrefix,
    ListenAddress,
    LowerText,
    MetricsKey,
    Names,
    OptionalText,
    Port,
    RedisUrl,
    StateFolder,
    UuidText,
    WebUrl,
)


class Settings(DerivedSettings, BaseSettings):
    """All settings, each checked by itself.

    :func:`pgnode.settings.load` also checks them against each other.
    """

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", frozen=True)

    node_host: ListenAddress = Field("0.0.0.0", description="Address the API listens on, IPv4 or IPv6.")
    service_port: Port = Field(62050, description="Port of the REST API; of gRPC when SERVICE_PROTOCOL is `grpc`.")
    api_port: Port = Field(
        62051, description="Port of the maintenance API (JSON): updates of core, geo files and node."
    )
    service_protocol: Literal["both", "rest", "grpc", "none"] = Field(
        "both",
        description="What is served: `both` (REST on SERVICE_PORT, gRPC on GRPC_PORT), `rest`, `grpc` (on SERVICE_PORT), or "
        "`none`: the supervisor has no API workers of its own, and those that `pgnode worker` runs serve. That needs REDIS_URL.",
    )
    grpc_port: Port = Field(62052, description="Port of gRPC when SERVICE_PROTOCOL is `both`.")
    grpc_workers: Annotated[int, Field(ge=0, le=64)] = Field(
        1, description="Number of gRPC workers; 0 serves no gRPC, as SERVICE_PROTOCOL=rest does."
    )
    grpc_max_calls: Annotated[int, Field(ge=8, le=100_000)] = Field(
        1000,
        description="Most calls that one gRPC worker runs at once; further ones get RESOURCE_EXHAUSTED. One connection may have "
        "64 open, viewers of the log included.",
    )
    grpc_max_streams: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="Most log viewers of one gRPC worker; further ones get RESOURCE_EXHAUSTED."
    )
    max_connections_per_address: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        2000,
        description="Most connections that one address of callers (IPv6: one /64) may have open with one API worker. Of more, "
        "those end first on which nothing was asked. 0: no limit.",
    )
    grpc_reflection: bool = Field(
        False, description="Whether gRPC's reflection service answers callers that have the key."
    )
    api_key: Annotated[UuidText | None, OptionalText] = Field(
        None, description="Key that callers must send, a UUID. Unset: the key in API_KEY_FILE, made if it is missing."
    )
    api_key_file: Annotated[Path | None, OptionalText] = Field(
        None, description="File that holds the key when API_KEY is unset. Unset: `api_key` in STATE_DIR."
    )
    grpc_health: Literal["open", "key"] = Field(
        "key",
        description="Whether gRPC's health service answers everybody (`open`) or callers that have the key (`key`). An open one "
        "tells anybody who probes the port that a node is there.",
    )
    metrics_key: Annotated[MetricsKey | None, OptionalText] = Field(
        None,
        description="Key that opens `/metrics`, `/livez` and `/readyz` on API_PORT and nothing else, 16 characters and more; "
        "for a monitor that must not have the API key, which opens them, too.",
    )
    allowed_callers: Callers = Field(
        "",
        description="Addresses and networks, separated by commas, from which the API's ports take connections, besides loopback; "
        "for others nobody listens there. Unset: all. METRICS_PORT is not among them.",
    )
    wrong_key_limit: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        30,
        description="Calls without a right key that one address may make a minute (in IPv6 one /64; in each worker) before each "
        "costs it the connection; 0 = any number. A right key is never refused for it.",
    )
    metrics_port: Annotated[Port | None, OptionalText] = Field(
        None,
        description="Port on which the supervisor itself serves metrics and health over plain HTTP, without a key, also while "
        "no worker answers. Unset: none.",
    )
    metrics_host: ListenAddress = Field(
        "127.0.0.1",
        description="Address that METRICS_PORT listens on. Whoever reaches it can read the metrics: no public one.",
    )
    ssl_cert_file: Annotated[Path | None, OptionalText] = Field(
        None,
        description="Certificate of the API, PEM. Unset: a self-signed one in STATE_DIR/tls, made if it is missing.",
    )
    ssl_key_file: Annotated[Path | None, OptionalText] = Field(
        None,
        description="Private key of SSL_CERT_FILE, PEM. Without it SSL_CERT_FILE is taken as OpenSSL's list of CAs "
        "and left alone.",
    )
    cert_names: CertNames = Field(
        "",
        description="Further names and addresses, separated by commas, for the certificate that the node makes: the public "
        "address of a node behind NAT, say. `pgnode cert renew` puts them into one that there is.",
    )
    state_dir: StateFolder = Field(
        default_factory=default_state_dir,
        description="Folder for everything the node keeps: key, certificate, store, sockets. Made with mode 0700.",
    )
    store_sync: Literal["second", "always"] = Field(
        "second",
        description="When a change is on the disk: `second`, within a second of its answer (what a power failure may cost), "
        "or `always`, before its answer.",
    )
    redis_url: Annotated[RedisUrl | None, OptionalText] = Field(
        None,
        description="Redis or Valkey, 6.2 and newer, that workers and supervisor meet over; nothing in it has to last: "
        "`redis://HOST:PORT/NUMBER`, `redis+sentinel://HOST:PORT,HOST:PORT/NAME`, `redis+cluster://HOST:PORT,HOST:PORT`, each "
        "with `rediss` for TLS, or `unix:///PATH` ([redis.md](redis.md)). Unset: a Valkey of the node's own.",
    )
    redis_user: Annotated[str | None, OptionalText] = Field(
        None, description="User of Redis's access rules (ACL), where REDIS_URL names none. Unset: `default`."
    )
    redis_password: Annotated[str | None, OptionalText] = Field(
        None, description="Password for Redis, where neither REDIS_URL nor a file holds it."
    )
    redis_password_file: Annotated[Path | None, OptionalText] = Field(
        None,
        description="File with the password for Redis in its first line; read at each connection, so that it can be replaced.",
    )
    redis_ca_file: Annotated[Path | None, OptionalText] = Field(
        None,
        description="PEM file with the certificates of the CAs that signed Redis's, with `rediss`. Unset: those of the system.",
    )
    redis_cert_file: Annotated[Path | None, OptionalText] = Field(
        None, description="The node's certificate for Redis, PEM, where Redis asks for one; read at each connection."
    )
    redis_key_file: Annotated[Path | None, OptionalText] = Field(
        None, description="The private key of REDIS_CERT_FILE, PEM, without a password."
    )
    redis_sentinel_user: Annotated[str | None, OptionalText] = Field(
        None, description="User for the sentinels, where they ask for one; that of Redis is not shown to them."
    )
    redis_sentinel_password: Annotated[str | None, OptionalText] = Field(
        None, description="Password for the sentinels, where no file holds it."
    )
    redis_sentinel_password_file: Annotated[Path | None, OptionalText] = Field(
        None, description="File with the password for the sentinels in its first line."
    )
    redis_prefix: KeyPrefix = Field(
        "pgnode", description="Prefix of every key in Redis; give each node its own where several share one Redis."
    )
    web_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(2, description="Number of REST workers.")
    gunicorn_conf: Annotated[GunicornFile | None, OptionalText] = Field(
        None,
        description="A Gunicorn configuration file (Python) that is laid over the node's own; read again at a SIGHUP to "
        "Gunicorn's master. What is the node's own (`bind`, `worker_class`, `certfile` …) may not stand in it.",
    )
    http_parser: Literal["auto", "fast", "python"] = Field(
        "auto",
        description="Parser of HTTP requests: `fast` is gunicorn_h1c, whose installation needs a C compiler; `python` is "
        "Gunicorn's own; `auto` is the fast one where it is installed.",
    )
    max_body_mib: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="Largest message accepted, in MiB.")
    xray_executable_path: Annotated[Executable | None, OptionalText] = Field(
        None, description="An Xray executable to run as the core. Unset: the embedded core (PyPI `Xray-core`)."
    )
    xray_assets_path: Annotated[ExistingFolder | None, OptionalText] = Field(
        None, description="Folder with geoip.dat and geosite.dat. Unset: `assets` in STATE_DIR."
    )
    wg_egress_outbound_file: Annotated[Path | None, OptionalText] = Field(
        None,
        description="WireGuard: file with one outbound of the core (a JSON object) through which the traffic of a WIREGUARD "
        "backend leaves the node; its tag is the interface's in any case. Unset: a plain `freedom`. Taken by the next core.",
    )
    wg_egress_dns: DnsServers = Field(
        "",
        description="WireGuard: DNS servers, addresses separated by commas, that answer what users of a WIREGUARD backend ask at "
        "port 53 of the interface's own addresses. Unset: nobody answers there. Taken by the next core.",
    )
    wg_egress_sniffing: bool = Field(
        False,
        description="WireGuard: whether the core of a WIREGUARD backend looks at the first bytes of a connection for the name "
        "that it is for, and connects to that name in place of the address. Taken by the next core.",
    )
    core_releases_url: WebUrl = Field(
        "https://github.com/XTLS/Xray-core/releases",
        description="Where core updates come from: an address with the layout of GitHub releases.",
    )
    geofiles_iran_url: WebUrl = Field(
        "https://github.com/Chocolate4U/Iran-v2ray-rules/releases/latest/download",
        description="Address of the folder with geoip.dat and geosite.dat of the region `iran`.",
    )
    geofiles_china_url: WebUrl = Field(
        "https://github.com/Loyalsoldier/v2ray-rules-dat/releases/latest/download",
        description="The same for the region `china`.",
    )
    geofiles_russia_url: WebUrl = Field(
        "https://github.com/runetfreedom/russia-v2ray-rules-dat/releases/latest/download",
        description="The same for the region `russia`.",
    )
    update_command: Annotated[Command | None, OptionalText] = Field(
        None,
        description="Command that updates this installation, for `POST /node/update`; split like a shell would, but run "
        "without one. Unset: what pip put into a virtual environment that the node's user may write to is upgraded by pip; for "
        "others such calls answer 501 and say what to do.",
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
        10_000, description="Last log lines kept in the supervisor's memory for viewers who come later; at most 64 MiB."
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
    core_hang_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        60.0,
        description="Seconds after which a core that answers neither its API nor a connection to one of its inbounds is "
        "replaced, with its config and its users; 0 = never. A core that stands still for a shorter time is left alone.",
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
        description="Seconds that the core keeps running after a stop, so that a start within them drops no connection; "
        "0 ends it at once.",
    )
    keep_alive_action: Literal["none", "stop"] = Field(
        "none",
        description="What to do when the panel has not called for the time that it named at the start (keep_alive): "
        "only say so, or stop.",
    )
    stall_timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        120,
        description="Time in which a caller has to take something of an answer that waits for it; it is closed then.",
    )
    delivery_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        30.0,
        description="Seconds within which a caller must have received statistics that it read with reset; otherwise "
        "the connection is reset and the traffic is reported again.",
    )
    pass_environment: Names = Field(
        "",
        description="Names of environment variables, separated by commas, that the core, GUNICORN_CONF and UPDATE_COMMAND may "
        "see besides the usual ones (paths, language, proxies, settings that are no secrets): for `env:NAME` in a config, say.",
    )
    log_dir: Annotated[Path | None, OptionalText] = Field(
        None,
        description="Folder of the log files that a config names (`log.access`, `log.error`); relative paths are below it. "
        "Unset: `logs` in STATE_DIR.",
    )
    log_paths: str = Field(
        "",
        description="Other folders and files, separated by commas, where a config's log files may be, too. A path elsewhere is "
        "refused: a panel may not write into every file of the node's user.",
    )
    script_paths: str = Field(
        "",
        description="Files and folders, separated by commas, of scripts that a config may have the core run (`routing.script`, "
        "`dns.script`). Others are refused: a script may do whatever the node's user may. Name none that a config can write to.",
    )
    log_file_max_mib: Annotated[int, Field(ge=0, le=1024 * 1024)] = Field(
        100,
        description="Size in MiB at which such a log file becomes `NAME.1`, the one before that `NAME.2` and so on, three in "
        "all, and another one is begun; 0 = it grows, and something else has to rotate it.",
    )
    apply_log_level: Literal["next", "now"] = Field(
        "next",
        description="When a config's log asks for more than the running core prints (a more talkative level, say): `next`, with "
        "the next core, or `now`, by a new core, which ends all connections. Fewer lines are had at once either way.",
    )
    inbound_stats: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether the core counts the traffic of its inbounds, which makes an upload cost it 1.2 to 2 times as "
        "much: `on`, `off`, or `auto`: as the config's policy says; where it says nothing, from the next start of the core on "
        "after somebody asked for statistics of inbounds. Taken by the next core. Users and outbounds are always counted.",
    )
    cut_sessions: Literal["on", "off"] = Field(
        "on",
        description="Whether connections end of users who were removed, and, in an inbound, of those whose account in it "
        "changed: `on`, or `off`, as the core does by itself: it checks accounts only when a connection opens.",
    )
    cut_sessions_grace_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        0.0, description="Seconds for which these connections go on after the change."
    )
    log_format: Literal["text", "json", "auto"] = Field(
        "text",
        description="Form of the node's own log, on stderr, of all its processes: `text`, or `json`, one object a line with "
        "`time`, `level`, `process`, `pid`, `message` and, where there are some, `fields` and `traceback`; `auto` is `json` in a "
        "container, and `text` on a terminal, in systemd's journal and everywhere else.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, LowerText] = Field(
        None,
        description="From which level on lines of the node's own log are printed after a start; `pgnode log-level` changes that "
        "while it runs. Unset: `info`, or `debug` with DEBUG.",
    )
    core_log: Literal["viewers", "stderr"] = Field(
        "viewers",
        description="Where the lines of the core go besides the log files that its config names: to `viewers` alone (panels that "
        "watch the log, `pgnode logs`), or to `stderr`, too, among the node's own lines, as those of the process `core`. With an "
        "access log that is a line for each connection, with the user's e-mail and where it goes.",
    )
    debug: bool = Field(
        False,
        description="Log more of the node itself: details of what it does, and what Gunicorn and Valkey print, as "
        "LOG_LEVEL=debug does. LOG_LEVEL has the last word. What the core logs is the panel's decision either way.",
    )
