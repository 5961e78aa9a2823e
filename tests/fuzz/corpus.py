"""The corpus: small files in ``tests/corpus/<door>/valid`` and ``…/invalid``, and one table of what is answered to each.

A file holds what its door takes: ``gate`` the bytes of a connection over HTTP, ``grpc`` those of one over HTTP/2,
``protobuf`` and ``json`` a body, ``rules`` a routing rule, ``configs`` an Xray config.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pgnode.wire import service_pb2 as pb
from tests.fuzz import judge
from tests.fuzz.cases import Case, GrpcCase, HttpCase
from tests.fuzz.http_requests import JSON, PROTOBUF, call

CORPUS = Path(__file__).parent.parent / "corpus"
TABLE = CORPUS / "answers.toml"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, and what is answered to it."""

    #: Below the corpus, such as ``json/invalid/twice.json``.
    file: str
    #: One a line, as :func:`shown` and :func:`shown_rpc` tell them: "400 INVALID_ARGUMENT: the text begins so".
    answers: tuple[str, ...]
    #: The call of a body: "PUT /user/sync".
    call: str = ""

    @property
    def path(self) -> Path:
        """Where it is."""
        return CORPUS / self.file

    def case(self) -> Case:
        """Return what is sent."""
        data = self.path.read_bytes()
        match self.file.split("/")[0]:
            case "gate":
                return HttpCase((data,))
            case "grpc":
                return GrpcCase((data,), method=self.call or None)
            case "rules":
                request = pb.AddRoutingRuleRequest(rule=data.decode(), should_reset=True)
                return call(("PUT", "/routing/rules"), request.SerializeToString(), ("Content-Type", PROTOBUF))
            case "configs":
                request_body = pb.Backend(config=data.decode()).SerializeToString()
                return call(("POST", "/start"), request_body, ("Content-Type", PROTOBUF), second=True)
            case kind:
                method, _, path = self.call.partition(" ")
                content = PROTOBUF if kind == "protobuf" else JSON
                port = "api" if path.startswith("/node/") else "service"
                return call((method, path), data, ("Content-Type", content), port=port)

    def fault(self, data: bytes) -> str:
        """Return how the answers that came differ from the table; "" when they do not."""
        if self.file.startswith("grpc/"):
            found = [shown_rpc(answer) for answer in judge.rpc_answers(data)]
        else:
            found = [shown(answer) for answer in judge.answers(data)]
        same = len(found) == len(self.answers) and all(map(str.startswith, found, self.answers))
        return "" if same else f"{found} in place of {list(self.answers)}"


def shown(answer: judge.Answer) -> str:
    """Return an answer as the table has it."""
    return "200" if answer.status == 200 else f"{answer.status} {answer.code}: {answer.text}"


def shown_rpc(answer: judge.RpcAnswer) -> str:
    """Return how a call ended as the table has it."""
    if answer.status is None:
        return "reset"
    name = judge.STATUSES[answer.status]
    return name if answer.status == 0 else f"{name} {answer.code}: {answer.text}"


def entries() -> list[Entry]:
    """Return the table."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [Entry(file, tuple(row["answers"]), row.get("call", "")) for file, row in rows.items()]


def files() -> set[str]:
    """Return the files that there are."""
    return {str(path.relative_to(CORPUS)) for path in CORPUS.glob("*/*/*") if path.is_file()}
