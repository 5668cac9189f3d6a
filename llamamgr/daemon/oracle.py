"""The question that tells a good build from a bad one: the ``selftest`` model and what it answers."""

from __future__ import annotations

from llamamgr.host.paths import Paths
from llamamgr.instances.verify import SelfTest
from llamamgr.models import selftest

_QUESTION = "How are the llamas?"


def self_test(paths: Paths) -> SelfTest:
    """The test that every build must pass; its model is written into the cache when it is not there."""
    return SelfTest(str(selftest.ensure(paths.cache / selftest.NAME)), _QUESTION, selftest.ANSWER)
