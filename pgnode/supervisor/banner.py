"""What the operator sees when the node is up: one block with all that is needed to connect a panel."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from pgnode import __version__
from pgnode.settings import Settings
from pgnode.supervisor.identity import Identity
from pgnode.supervisor.web import local_address


def banner(settings: Settings, who: Identity, *, core: str, version: str, users: int) -> None:
    """Print the block to stdout. The key itself is shown only when it was made just now."""
    host = local_address(settings)
    shown_host = f"[{host}]" if ":" in host else host
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rest = settings.gunicorn_ports.get("SERVICE_PORT")
    if rest is not None:
        table.add_row("API", f"https://{shown_host}:{rest}  (listening on {settings.node_host}, REST)")
    if settings.grpc_worker_count:
        port = settings.grpc_listen[1]
        table.add_row("gRPC" if rest else "API", f"{shown_host}:{port}  (listening on {settings.node_host}, gRPC, TLS)")
    table.add_row("Maintenance", f"https://{shown_host}:{settings.api_port}  (JSON, with the same key)")
    if who.key_is_new:
        table.add_row("API key", f"{who.api_key}  (made now and shown once; kept in {settings.key_file})")
    elif settings.api_key is not None:
        table.add_row("API key", "as API_KEY says")
    else:
        table.add_row("API key", f"kept in {settings.key_file}")
    made = "  (self-signed, made now)" if who.cert_is_new else ""
    table.add_row("Certificate", f"{settings.cert_file}{made}")
    table.add_row("Core", f"Xray {version}, {core}; {_users(users)}")
    store = "embedded Valkey" if settings.redis_url is None else "Redis at REDIS_URL"
    table.add_row(
        "Processes",
        f"supervisor, {store}, Gunicorn with {settings.web_concurrency} REST workers, "
        f"{settings.grpc_worker_count} gRPC workers, the core when started",
    )
    table.add_row("State", str(settings.state_dir))
    key = "$API_KEY" if settings.api_key is not None else f"$(cat {settings.key_file})"
    address = f"{rest}/info" if rest is not None else f"{settings.api_port}/"
    table.add_row(
        "Try next", f'curl --cacert {settings.cert_file} -H "x-api-key: {key}" https://{shown_host}:{address}'
    )
    table.add_row("", "or add the node to a panel with this address, port, key and certificate")
    table.add_row("", "or see it work without a panel: pgnode demo. Ctrl-C ends the node")
    console = Console(soft_wrap=False, highlight=False, markup=False)
    console.print(Panel(table, title=f"pgnode {__version__} is ready", title_align="left", expand=False))


def _users(users: int) -> str:
    return f"{users} users in the store" if users else "waiting for a panel to start it"
