from pgnode.xray.proto import net_pb2 as _net_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReceiverConfig(_message.Message):
    __slots__ = ("port_list", "listen")
    PORT_LIST_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FIELD_NUMBER: _ClassVar[int]
    port_list: _net_pb2.PortList
    listen: _net_pb2.IPOrDomain
    def __init__(self, port_list: _Optional[_Union[_net_pb2.PortList, _Mapping]] = ..., listen: _Optional[_Union[_net_pb2.IPOrDomain, _Mapping]] = ...) -> None: ...
