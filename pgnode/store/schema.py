"""The tables of the store and how a file of an earlier version is brought up to them. Pure.

===============  =====================================================================================================
table            what a row is
===============  =====================================================================================================
``meta``         ``backend``: ``Backend`` message of the start, without its users; ``active``: whether it shall run;
                 ``core_run``: number of the last core run; ``run``: the core run that the counters are of;
                 ``restoring``: how often a supervisor began to bring the backend back, and was gone before it had;
                 ``restore_errors``: how often one ended by itself over that;
                 ``write_off``: the books are of a backup; what a core that is found has counted is taken for reported;
                 ``drain``: what an operator asked for whose node is being drained (JSON);
                 ``inbounds_asked``: somebody asked for statistics of inbounds;
                 ``origin``: the version whose state was taken over at the first start, "new" where there was none
``user_set``     everybody who was desired at one moment, packed (:mod:`pgnode.store.user_set`)
``user_log``     users who changed since, those of one commit in a row: packed, and the keys of those who are gone (JSON)
``users``        desired users as the first schema had them: e-mail in lower case, ``User`` message; gone with the first set
``rejected``     a user that was asked for and cannot be applied, with the cause and since when
``superseded``   a user who was changed after a bulk command had come and before it was taken in, with that command
``departed_log`` users who lost an account in the core and whose connections are to be ended still, with the messages before,
                 packed, those of one commit in a row, with their largest generation; later rows win
``departed``     the same as the third schema had them, one to a row
``taken``        a command that was done and must not be done again
``routing``      what was changed in the routing of the config: ``base`` (its hash), ``rules``, ``overrides`` (JSON)
``counters``     one counter of the core, as of the last time the log was folded into this table
``counter_log``  counters that changed since, some of them in each row; later rows win
``loans``        a part of what was handed out and is not known to have arrived
``settled``      a loan that ended
===============  =====================================================================================================

``user_version`` of the file is the version of the schema; ``application_id`` tells the node's files from others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: "PGND".
APPLICATION_ID: Final = 0x50474E44

#: Statements, by the schema version that they start from.
Migrations = Sequence[Sequence[str]]

_FIRST: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE users (key TEXT PRIMARY KEY, message BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE rejected (key TEXT PRIMARY KEY, email TEXT NOT NULL, cause TEXT NOT NULL, at_ms INTEGER NOT NULL, "
    "message BLOB NOT NULL, by_core INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE superseded (key TEXT PRIMARY KEY, command TEXT NOT NULL) WITHOUT ROWID",
    # With a rowid: they are read back in the order in which they were written.
    "CREATE TABLE taken (id INTEGER PRIMARY KEY, command TEXT NOT NULL UNIQUE, kind TEXT NOT NULL)",
    "CREATE TABLE routing (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, total INTEGER NOT NULL, reported INTEGER NOT NULL, seen INTEGER NOT NULL, "
    "run INTEGER) WITHOUT ROWID",
    "CREATE TABLE counter_log (id INTEGER PRIMARY KEY, packed BLOB NOT NULL)",
    "CREATE TABLE loans (part TEXT PRIMARY KEY, loan TEXT NOT NULL, kind TEXT NOT NULL, worker TEXT NOT NULL, "
    "body BLOB NOT NULL)",
    "CREATE TABLE settled (id INTEGER PRIMARY KEY, loan TEXT NOT NULL UNIQUE, delivered INTEGER NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
)

_SECOND: Final = (
    "CREATE TABLE user_set (id INTEGER PRIMARY KEY, packed BLOB NOT NULL)",
    "CREATE TABLE user_log (id INTEGER PRIMARY KEY, packed BLOB NOT NULL, gone TEXT)",
)

_THIRD: Final = (
    "CREATE TABLE departed (key TEXT PRIMARY KEY, at REAL NOT NULL, messages BLOB NOT NULL) WITHOUT ROWID",
)

_FOURTH: Final = (
    "CREATE TABLE departed_log (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, packed BLOB NOT NULL)",
)

#: Statements that lead from schema version n to n + 1, at place n; an empty file has version 0. Only ever added to.
MIGRATIONS: Final[Migrations] = (_FIRST, _SECOND, _THIRD, _FOURTH)

#: The first version with the tables ``user_set`` and ``user_log``.
WITH_USER_SET: Final = 2

#: The first version with the table ``departed``.
WITH_DEPARTED: Final = 3

#: The first version with the table ``departed_log``.
WITH_DEPARTED_LOG: Final = 4

#: The version that this node writes.
VERSION: Final = len(MIGRATIONS)
