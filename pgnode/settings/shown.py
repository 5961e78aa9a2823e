"""Settings as they may be shown. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pgnode.settings.derived import SECRET_FIELDS
from pgnode.settings.redis_address import SECRET_PARTS

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

#: A secret in the query of an address.
_SECRET_PART = re.compile(rf"([?&](?:{'|'.join(sorted(SECRET_PARTS))})=)[^&]*")


def api_addresses(settings: Settings) -> list[str]:
    """Say where the API listens.

    Args:
        settings: The node's settings.

    Returns:
        Protocol, address and port of each.
    """
    host = f"[{settings.node_host}]" if ":" in settings.node_host else settings.node_host
    names = {"SERVICE_PORT": "REST", "API_PORT": "maintenance"}
    found = [f"{names[name]} {host}:{port}" for name, port in settings.gunicorn_ports.items()]
    if settings.grpc_worker_count:
        found.insert(len(found) - 1, f"gRPC {host}:{settings.grpc_listen[1]}")
    return found


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Return settings as they may be shown: by the names of their variables, secrets hidden."""
    return {name.upper(): shown_value(name, value) for name, value in settings}


def shown_value(name: str, value: object) -> Any:
    """Return the value of a setting as it may be shown.

    Args:
        name: Its field.
        value: Its value.

    Returns:
        The value, as JSON knows it; of a secret only as much as helps to tell it from others.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if name in SECRET_FIELDS:
        return shown_url(str(value)) if name == "redis_url" else "(set)"
    return str(value)


def shorten(secret: str) -> str:
    """Return a secret as it may be printed: its first four characters."""
    return f"{secret[:4]}…" if len(secret) > 4 else "…"


def shown_url(url: str) -> str:
    """Return an address as it may be printed: without its password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return shorten(url)
    # The last one: a password may have an "@", too.
    user, at, place = rest.rpartition("@")
    place = _SECRET_PART.sub(r"\1…", place)
    if not at:
        return f"{scheme}://{place}"
    name, colon, _ = user.partition(":")
    return f"{scheme}://{name}{':…' if colon else ''}@{place}"
