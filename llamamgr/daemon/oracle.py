"""The question that tells a good build from a bad one: the ``selftest`` model and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamamgr.host.paths import Paths
from llamamgr.models import selftest

if TYPE_CHECKING:
    from llamamgr.instances.verify import SelfTest

_QUESTION = "How are the llamas?"


def self_test(paths: Paths) -> SelfTest:
    """The test that every build must pass; its model is written into the cache when it is not there."""
    from llamamgr.instances.verify import SelfTest

    return SelfTest(str(selftest.ensure(paths.cache / selftest.NAME)), _QUESTION, selftest.ANSWER)
