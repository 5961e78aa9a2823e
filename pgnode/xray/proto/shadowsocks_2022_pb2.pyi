from pgnode.xray.proto import user_pb2 as _user_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Account(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class ServerConfig(_message.Message):
    __slots__ = ("method", "key", "network")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    method: str
    key: str
    network: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, method: _Optional[str] = ..., key: _Optional[str] = ..., network: _Optional[_Iterable[int]] = ...) -> None: ...

class MultiUserServerConfig(_message.Message):
    __slots__ = ("method", "key", "users", "network")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    method: str
    key: str
    users: _containers.RepeatedCompositeFieldContainer[_user_pb2.User]
    network: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, method: _Optional[str] = ..., key: _Optional[str] = ..., users: _Optional[_Iterable[_Union[_user_pb2.User, _Mapping]]] = ..., network: _Optional[_Iterable[int]] = ...) -> None: ...
