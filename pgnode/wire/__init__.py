"""The node's messages as callers know them, the framing of chunked bodies and the names of statistics. Pure.

``service_pb2`` is generated from ``service.proto``::

    python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. pgnode/wire/service.proto
"""
