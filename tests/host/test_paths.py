"""The folders that llamamgr makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamamgr.core.errors import PermissionDeniedError
from llamamgr.host.paths import ensure


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no folders")
def test_a_folder_where_none_can_be_made_is_told_with_what_to_set() -> None:
    with pytest.raises(PermissionDeniedError, match="/proc/llamamgr/run cannot be made") as caught:
        ensure(Path("/proc/llamamgr/run"), private=True)
    assert "LLAMAMGR_HOME" in caught.value.hint
