from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Domain(_message.Message):
    __slots__ = ("type", "value")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        Substr: _ClassVar[Domain.Type]
        Regex: _ClassVar[Domain.Type]
        Domain: _ClassVar[Domain.Type]
        Full: _ClassVar[Domain.Type]
    Substr: Domain.Type
    Regex: Domain.Type
    Domain: Domain.Type
    Full: Domain.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type: Domain.Type
    value: str
    def __init__(self, type: _Optional[_Union[Domain.Type, str]] = ..., value: _Optional[str] = ...) -> None: ...

class GeoSiteRule(_message.Message):
    __slots__ = ("file", "code", "attrs")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    file: str
    code: str
    attrs: str
    def __init__(self, file: _Optional[str] = ..., code: _Optional[str] = ..., attrs: _Optional[str] = ...) -> None: ...

class DomainRule(_message.Message):
    __slots__ = ("geosite", "custom")
    GEOSITE_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    geosite: GeoSiteRule
    custom: Domain
    def __init__(self, geosite: _Optional[_Union[GeoSiteRule, _Mapping]] = ..., custom: _Optional[_Union[Domain, _Mapping]] = ...) -> None: ...

class CIDR(_message.Message):
    __slots__ = ("ip", "prefix")
    IP_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ip: bytes
    prefix: int
    def __init__(self, ip: _Optional[bytes] = ..., prefix: _Optional[int] = ...) -> None: ...

class CIDRRule(_message.Message):
    __slots__ = ("cidr", "reverse_match")
    CIDR_FIELD_NUMBER: _ClassVar[int]
    REVERSE_MATCH_FIELD_NUMBER: _ClassVar[int]
    cidr: CIDR
    reverse_match: bool
    def __init__(self, cidr: _Optional[_Union[CIDR, _Mapping]] = ..., reverse_match: _Optional[bool] = ...) -> None: ...

class GeoIPRule(_message.Message):
    __slots__ = ("file", "code", "reverse_match")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REVERSE_MATCH_FIELD_NUMBER: _ClassVar[int]
    file: str
    code: str
    reverse_match: bool
    def __init__(self, file: _Optional[str] = ..., code: _Optional[str] = ..., reverse_match: _Optional[bool] = ...) -> None: ...

class IPRule(_message.Message):
    __slots__ = ("geoip", "custom")
    GEOIP_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    geoip: GeoIPRule
    custom: CIDRRule
    def __init__(self, geoip: _Optional[_Union[GeoIPRule, _Mapping]] = ..., custom: _Optional[_Union[CIDRRule, _Mapping]] = ...) -> None: ...
