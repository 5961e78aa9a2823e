"""The generated messages are those of the description."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from pgnode.wire import service_pb2 as pb
from tests.generated_docs import ROOT


def test_the_generated_messages_are_those_of_the_proto(tmp_path: Path) -> None:
    compiled = tmp_path / "service.pb"
    source = ROOT / "pgnode" / "wire" / "service.proto"
    assert protoc.main(["protoc", f"-I{ROOT}", f"--descriptor_set_out={compiled}", str(source)]) == 0
    described, generated = FileDescriptorSet.FromString(compiled.read_bytes()).file[0], FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(generated)
    for message in described.message_type:
        for field in (*message.field, *(inner for nested in message.nested_type for inner in nested.field)):
            field.ClearField("json_name")  # follows from the name, and only one of the two has it
    assert generated == described
