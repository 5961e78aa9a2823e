"""The messages of the Xray core's API that the node uses, under the core's own full names and field numbers.

Only the fields the node reads or writes are written down: all others survive a parse and a serialization as unknown
fields. Files here are named by content; what counts on the wire is the ``package`` in each. The ``*_pb2`` modules are
generated (``python -m pgnode.xray.proto.generate``); services have no generated stubs, ``pgnode.xray.client.api`` calls
their methods by path. Source of names and numbers: the ``.proto`` files of Xray-core, release 26.10.10.
"""
