from pgnode.xray.proto import observatory_pb2 as _observatory_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetOutboundStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _observatory_pb2.ObservationResult
    def __init__(self, status: _Optional[_Union[_observatory_pb2.ObservationResult, _Mapping]] = ...) -> None: ...
