"""What children of the node have in their environment."""

from __future__ import annotations

from pgnode.os_support.environment import confine, drop_grpc_variables


def test_what_children_may_need_stays_and_all_else_goes() -> None:
    environment = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "https_proxy": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "GOMEMLIMIT": "1GiB",
        "GRPC_POLL_STRATEGY": "none that is known",
        "GRPC_TRACE": "all",
        "PORT_A": "8443",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "GUNICORN_CMD_ARGS": "--daemon",
        "API_KEY": "opens the API",
        "CLOUD_TOKEN": "opens something else",
        "NOTIFY_SOCKET": "/run/systemd/notify",
    }
    assert confine(environment, {"PORT_A"}) == [
        "API_KEY",
        "CLOUD_TOKEN",
        "GRPC_POLL_STRATEGY",
        "GRPC_TRACE",
        "GUNICORN_CMD_ARGS",
        "NOTIFY_SOCKET",
        "PYTHONINSPECT",
        "PYTHONWARNINGS",
    ]
    assert sorted(environment) == ["GOMEMLIMIT", "HTTPS_PROXY", "LC_ALL", "PATH", "PORT_A", "https_proxy"]
    assert confine(environment, {"PORT_A"}) == []


def test_the_grpc_library_has_no_variables() -> None:
    environment = {"GRPC_POLL_STRATEGY": "x", "GRPC_PORT": "1", "GRPC_ENABLE_FORK_SUPPORT": "1", "PATH": "/bin"}
    assert drop_grpc_variables(environment, {"GRPC_PORT"}) == ["GRPC_ENABLE_FORK_SUPPORT", "GRPC_POLL_STRATEGY"]
    assert environment == {"GRPC_PORT": "1", "PATH": "/bin"}
