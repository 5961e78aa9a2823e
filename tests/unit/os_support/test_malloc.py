"""The C library's calls for its heap, and a system whose library has none."""

from __future__ import annotations

import ctypes
from unittest import mock

import pytest

from pgnode.os_support import malloc


def test_the_calls_that_are_made() -> None:
    library = mock.Mock()
    with mock.patch.object(ctypes, "CDLL", return_value=library):
        malloc.keep_large_blocks_apart()
        malloc.trim_heap()
    assert library.mallopt.call_args_list == [mock.call(-3, malloc.LARGE_BYTES), mock.call(-8, malloc.ARENAS_MAX)]
    library.malloc_trim.assert_called_once_with(0)


@pytest.mark.parametrize("error", [AttributeError("mallopt"), OSError("no library")])
def test_other_libraries_have_no_such_calls(error: Exception) -> None:
    with mock.patch.object(ctypes, "CDLL", side_effect=error):
        malloc.keep_large_blocks_apart()
        malloc.trim_heap()


def test_the_library_of_this_system_takes_the_call() -> None:
    malloc.trim_heap()
