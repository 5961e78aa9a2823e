"""Types of the settings' values: a type of Python, and what is allowed of it (:mod:`pgnode.settings.checks`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from pgnode.settings.checks import (
    check_callers,
    check_cert_names,
    check_command,
    check_dns_servers,
    check_executable,
    check_existing_folder,
    check_key_prefix,
    check_listen_address,
    check_metrics_key,
    check_names,
    check_redis_url,
    check_uuid,
    check_web_url,
    default_state_dir,
)
from pgnode.settings.gunicorn_file import check_gunicorn_file

MetricsKey = Annotated[str, AfterValidator(check_metrics_key)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: An empty variable means the same as none.
OptionalText = BeforeValidator(lambda value: None if value == "" else value)
LowerText = BeforeValidator(lambda value: (value.lower() or None) if isinstance(value, str) else value)
UuidText = Annotated[str, AfterValidator(check_uuid)]
ListenAddress = Annotated[str, AfterValidator(check_listen_address)]
RedisUrl = Annotated[str, AfterValidator(check_redis_url)]
WebUrl = Annotated[str, AfterValidator(check_web_url)]
Command = Annotated[str, AfterValidator(check_command)]
KeyPrefix = Annotated[str, AfterValidator(check_key_prefix)]
CertNames = Annotated[str, AfterValidator(check_cert_names)]
DnsServers = Annotated[str, AfterValidator(check_dns_servers)]
Names = Annotated[str, AfterValidator(check_names)]
Callers = Annotated[str, AfterValidator(check_callers)]
GunicornFile = Annotated[Path, AfterValidator(check_gunicorn_file)]
StateFolder = Annotated[Path, BeforeValidator(lambda value: default_state_dir() if value == "" else value)]
ExistingFolder = Annotated[Path, AfterValidator(check_existing_folder)]
Executable = Annotated[Path, AfterValidator(check_executable)]
