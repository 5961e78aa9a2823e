"""What Gunicorn says of its own settings: which there are, which values it takes, and what they mean."""

from __future__ import annotations

from typing import Any

from pgnode.worker.gunicorn_compat import GunicornConfig


def takes_proxy_protocol(value: Any) -> bool:
    """Tell whether Gunicorn's setting ``proxy_protocol`` has it read who a proxy says that its caller is.

    Args:
        value: Of the setting, checked.

    Returns:
        Whether it does. Only Gunicorn's own parser knows how to.
    """
    config = GunicornConfig()
    config.set("proxy_protocol", value)
    return bool(config.proxy_protocol != "off")


def known_settings() -> frozenset[str]:
    """Return the names of all settings that Gunicorn has."""
    return frozenset(GunicornConfig().settings)


def check_setting(name: str, value: Any) -> None:
    """Refuse a value that Gunicorn does not take for one of its settings.

    Args:
        name: The setting.
        value: What it is to be.

    Raises:
        ValueError: Gunicorn's reason.
    """
    try:
        GunicornConfig().set(name, value)
    except Exception as error:
        raise ValueError(str(error)) from None
