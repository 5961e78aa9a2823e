from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Network(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    Unknown: _ClassVar[Network]
    TCP: _ClassVar[Network]
    UDP: _ClassVar[Network]
    UNIX: _ClassVar[Network]
Unknown: Network
TCP: Network
UDP: Network
UNIX: Network
