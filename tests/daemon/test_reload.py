"""What of a new configuration is in force at once."""

from __future__ import annotations

import pytest

from llamamgr.core.config import Config, parse_config
from llamamgr.daemon.reload import _needing_restart

PAIR = {"tls_cert": "/c.pem", "tls_key": "/k.pem"}


@pytest.mark.parametrize(
    ("former", "new", "restart"),
    [
        ({}, {"head_wait": 3, "max_connections": 9, "fetch_media": True}, ()),
        ({}, {"host": "127.0.0.1:1"}, ("server.host",)),
        ({}, PAIR, ("server.tls_cert",)),
        (PAIR, {}, ("server.tls_cert",)),
        (PAIR, {"tls_cert": "/other.pem", "tls_key": "/other.key"}, ()),
    ],
)
def test_only_what_cannot_be_changed_while_it_listens_needs_a_restart(
    former: dict[str, object], new: dict[str, object], restart: tuple[str, ...]
) -> None:
    assert _needing_restart(config(former), config(new)) == restart


def config(server: dict[str, object]) -> Config:
    return parse_config({"server": server})
