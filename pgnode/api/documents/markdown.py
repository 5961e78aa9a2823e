"""docs/api.md, for people who write a client or debug one."""

from __future__ import annotations

from collections.abc import Iterable

from pgnode.api.methods import EVERY_CALL, MESSAGE_CALL, METHODS, NEEDS_CORE, Method
from pgnode.api.service.maintenance_calls import CALLS
from pgnode.api.service.monitor_pages import PAGES
from pgnode.errors import BY_CODE, BusUnavailableError, ConflictError, DeadlineExceededError, NodeError

_HEAD = """\
# The API

Every method over both protocols, from the table in [`pgnode/api/methods.py`](../pgnode/api/methods.py). This page is
generated: `make docs`. Messages: [service.proto](service.proto). REST for tools: [openapi.json](openapi.json) (OpenAPI 3.1).

## Calling

* TLS always, with the node's certificate. The key goes into `x-api-key` or `Authorization: Bearer`, over gRPC into metadata
  of the same names; without the right one every path answers 401 / `UNAUTHENTICATED`, unknown ones too.
* REST: `https://<node>:<SERVICE_PORT><path>`, with or without a trailing slash. GET and DELETE carry bodies where a message is
  asked for. PUT and POST with a message need a `Content-Length` or chunked coding; `Content-Length: 0` is the empty message.
* A body or an answer is the message in binary form (`application/x-protobuf`) or in JSON (below).
* A message may be as large as `MAX_BODY_MIB` (64 MiB).

```
S=~/.local/state/pgnode
node() { curl -sS --cacert $S/tls/cert.pem -H "x-api-key: $(cat $S/api_key)" -H 'Accept: application/json' \\
         -H 'Content-Type: application/json' "https://127.0.0.1:62050$@"; }

node /info
node /stats -X GET -d '{"type": "UserStat", "name": "alice@example.com"}'
node /user/sync -X PUT -d '{"email": "alice@example.com", "inbounds": ["VLESS"], "proxies": {"vless": {"id": "'$(uuidgen)'"}}}'
node /start -d "$(jq -n --rawfile config config.json '{$config}')"
```

"""

_JSON = """\
## JSON

With `Accept: application/json` the answer is JSON, with `Content-Type: application/json` the message that is sent; one does
not need the other. Errors have the same texts and codes (below). It is proto3 JSON:

* Fields have the names of [service.proto](service.proto); `camelCase` is understood as well. In answers every field is there,
  also when it has its default. Large answers come on one line.
* `int64` and `uint64` are strings in answers (`"value": "1024"`), since many readers of JSON have no integers of 64 bits;
  numbers and strings are understood.
* Enums are names (`"type": "UserStat"`). `null` is a field that is not there. A body of no bytes is the empty message.
* Unknown fields, fields given twice, wrong types, unknown names and numbers out of range are 400, with the path first:
  `users[3].proxies.vless.id: a string is expected, not a number`. So are text that is no JSON, no UTF-8, or too deeply nested.
* `PUT /users/sync/chunked` takes one `Users` object (`{"users": […]}`): JSON that is whole needs no chunks.
* JSON is for people: a list of 100,000 users takes seconds, in which the worker answers others late. Programs send protobuf.
* `GET /logs` sends one `Log` object a line (`application/x-ndjson`), and an empty line as heartbeat.

"""

_STREAMS = """\
## Streams

**`PUT /users/sync/chunked`**: the body is a run of (unsigned varint length, `UsersChunk` bytes), usually in HTTP's chunked
coding, whose borders mean nothing. Frames of length zero are skipped. Chunks may come in any order, equal indexes append, and
reading stops at the chunk with `last`; the indexes 0 to the last must all be there. Nothing is applied before that.

**`GET /logs`** sends its headers at once and lasts as long as the caller stays. Plain: one log line a line, an empty line as
heartbeat, `Content-Type: text/event-stream`. With `Accept: text/event-stream` it sends Server-Sent Events (`id:`, `data:`).
Bytes that are not UTF-8 are replaced. A caller that reads too slowly gets `[N lines dropped]`.

"""

_MAINTENANCE = """\
## Maintenance

JSON over TLS on `API_PORT` (62051), with the same key. An answer is an object with `detail`, a sentence; an error has its
text in `detail`, too. All calls but the first are jobs, which may take minutes. One job runs at a time, and a caller that goes
away does not stop its job.\
"""

_MONITORS = """\
## Pages for monitors

GET on `API_PORT`, with the key; METRICS_KEY opens those that say so, and nothing else. Where METRICS_PORT is set the supervisor
serves them there, over plain HTTP and without a key. What they say is in [metrics.md](metrics.md).\
"""

_ERRORS = """\
## Errors

REST answers `{"error": "<text>", "code": "<code>"}` (`application/json`). A caller that sends the right key in `x-api-key`, and
neither sends nor accepts JSON, as panels do, gets the text alone (`text/plain; charset=utf-8`), since a panel shows the body as
it is, and the code in the header `x-error-code`. On `API_PORT` errors are JSON for all. gRPC has the status with the same text,
and the code in the trailing metadata as `error-code`. The text begins with the cause, since some callers show only 128
characters. An answer of 503 has `Retry-After`.

"""

_STATES = """\
## States

A method works **always**, or **with a core**. Without a core, the latter answer:

| state of the node | answer |
| --- | --- |
| no core was started, it was stopped, or it keeps failing | 503 `BACKEND_NOT_INITIALIZED` "backend not initialized" |
| the core is being started, or brought back after it died | 503 `CORE_NOT_STARTED` "core is not started yet" |
| the core runs, but its API did not answer | 503 `CORE_UNAVAILABLE` "failed to get …" |

While a node that was restarted takes over the core that went on, calls wait, and are answered as ever then; only where that
takes longer than 8 s a read is 503 `CORE_UNAVAILABLE`. None is answered as if no core had been started.

"""

_BACKENDS = """\
## Two types of backend

`Backend.type` is XRAY (0), with a whole Xray config, or WIREGUARD (1), with an interface as JSON: `interface_name` (`wg0`),
`private_key`, `pre_shared_key`, `listen_port` (51820), `address`, `latency` ([wireguard.md](wireguard.md)). The node has one at a
time; a start of the other type takes its place. `core_type` says which one runs. A WIREGUARD backend answers all methods but
those of routing and balancers, which are 501. Its user is online while it has a connection and for 45 s after its last traffic;
its addresses are those inside the tunnel, since the core tells no others. Statistics of its outbound have the interface's name.

"""

_AGE = """\
## How old statistics are

The core is read every `STATS_UPDATE_INTERVAL_SECONDS` (5). Over REST {calls} say in `Age` how many seconds ago that was. With
`reset` the core is read for this very call, and there is no `Age`. Where readings have failed for two intervals, the answer is
503 `CORE_UNAVAILABLE` instead of old numbers.

"""


def api_page() -> str:
    """Return the text of docs/api.md."""
    return (
        _HEAD
        + _methods()
        + _STATES
        + _BACKENDS
        + _age()
        + _JSON
        + _STREAMS
        + _maintenance()
        + _monitors()
        + _ERRORS
        + _errors()
    )


def _methods() -> str:
    rows = [
        f"| `{row.grpc_name}` | `{row.http_method} {row.path}` | {_messages(row)} "
        f"| {'always' if row.any_state else 'with a core'} | {row.summary} |"
        for row in METHODS
    ]
    return _table(
        "## Methods\n\nOver gRPC: service `service.NodeService`, port `GRPC_PORT`.",
        ("gRPC", "REST", "message → answer", "works", "what it does"),
        rows,
    )


def _age() -> str:
    paths = [f"`{row.path}`" for row in METHODS if row.aged]
    return _AGE.format(calls=", ".join(paths[:-1]) + f" and {paths[-1]}")


def _messages(row: Method) -> str:
    request, response = row.request.DESCRIPTOR.name, row.response.DESCRIPTOR.name
    return f"{'stream ' * row.client_streaming}{request} → {'stream ' * row.streaming}{response}"


def _maintenance() -> str:
    rows = [f"| `{call.http_method} {call.path}` | {call.summary} |" for call in CALLS]
    return _table(_MAINTENANCE, ("call", "what it does"), rows)


def _monitors() -> str:
    rows = [
        f"| `{page.http_method} {page.path}` | {page.summary} | {page.unwell or 'never'} "
        f"| {'yes' if page.with_metrics_key else 'no'} |"
        for page in PAGES
    ]
    return _table(_MONITORS, ("page", "what it says", "503", "METRICS_KEY"), rows)


def _errors() -> str:
    rows = []
    for error in sorted(BY_CODE.values(), key=lambda error: (error.status, error.code)):
        meaning = (error.__doc__ or "").splitlines()[0].replace("``", "`")
        rows.append(f"| {error.status} | {error.grpc_status} | `{error.code}` | {meaning} | {_who(error)} |")
    return _table("", ("REST", "gRPC", "code", "meaning", "who answers it"), rows).strip() + "\n"


def _who(error: type[NodeError]) -> str:
    """Name the methods that answer ``error``, in words where they are many."""
    if error in EVERY_CALL:
        return "every method"
    if error in MESSAGE_CALL:
        return "every method that takes a message"
    if error in NEEDS_CORE:
        return "every method that needs a core"
    if error in (BusUnavailableError, DeadlineExceededError):
        return "what goes to the supervisor; reads only before they have heard from it"
    names = [f"`{row.grpc_name}`" for row in METHODS if error in row.all_errors]
    names += [
        f"`{call.path}`" for call in CALLS if error in call.errors or (error is ConflictError and call.path != "/")
    ]
    return ", ".join(names) or "no method of its own"


def _table(head: str, columns: Iterable[str], rows: Iterable[str]) -> str:
    names = list(columns)
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}", *rows]
    return f"{head}\n\n" + "\n".join(lines) + "\n\n"
