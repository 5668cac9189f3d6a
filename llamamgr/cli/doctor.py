"""``llamamgr doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.host.paths import Paths
    from llamamgr.instances.diagnosis import Finding


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Check compiler, cmake, ninja, git, arches, disk, port and instances; each fault with the command that mends it.

    Ends with status 7 when something that llamamgr cannot do without is missing.
    """
    from llamamgr.core.errors import MissingToolError
    from llamamgr.host.paths import Paths
    from llamamgr.instances.diagnosis import findings

    paths = Paths.of_environment()
    found = (*findings(paths), _port(paths), _keys(paths), *_certificate(paths))
    if as_json:
        import json

        import msgspec

        print(json.dumps({"findings": msgspec.to_builtins(found)}, indent=2))
    else:
        _print(found)
    if any(finding.required and not finding.good for finding in found):
        raise typer.Exit(MissingToolError.exit_code)


def _print(found: tuple[Finding, ...]) -> None:
    width = max(len(finding.name) for finding in found)
    for finding in found:
        mark = ("✓" if finding.good else "✗") if finding.applies else "·"
        print(f"{mark} {finding.name.ljust(width)}  {finding.text}")
        for line in filter(None, finding.mend.split("; ")):
            print(f"{' ' * (width + 4)}→ {line}")


def _certificate(paths: Paths) -> tuple[Finding, ...]:
    import time

    from llamamgr.core.errors import ConfigError
    from llamamgr.host.settings import load_config
    from llamamgr.host.tls import examine
    from llamamgr.instances.diagnosis import Finding

    server = load_config(paths).server
    if not server.tls_cert:
        return ()
    now = time.time()
    try:
        certificate = examine(server.tls_cert, server.tls_key, now)
    except ConfigError as error:
        return (Finding("tls", False, error.what, error.hint, required=True),)
    warning = certificate.warning(now)
    mend = "renew it; llamamgr daemon reload"
    good = f"{certificate.path} is good for {certificate.days_left(now):.0f} days"
    return (Finding("tls", not warning, warning or good, mend if warning else ""),)


def _port(paths: Paths) -> Finding:
    from llamamgr.core.config import parse_address
    from llamamgr.daemon.client import Control
    from llamamgr.host.ports import holder_of
    from llamamgr.host.settings import load_config
    from llamamgr.instances.diagnosis import Finding

    address = parse_address(load_config(paths).server.host)
    holder = holder_of(address.port)
    daemon = Control(paths).ping()
    if holder is None:
        return Finding("port", True, f"{address.port} is free")
    if daemon is not None and holder.pid in (0, daemon["pid"]):
        return Finding("port", True, f"{address.port} is llamamgr's own (pid {daemon['pid']})")
    other = f"{address.host}:{address.port + 1}"
    return Finding(
        "port",
        False,
        f"{address.port} is held by {holder}",
        f"{holder.stop or 'stop it'}, or LLAMAMGR_HOST={other} llamamgr serve",
    )


def _keys(paths: Paths) -> Finding:
    from llamamgr.host.keys_file import load_keys
    from llamamgr.host.settings import load_config
    from llamamgr.instances.diagnosis import Finding

    server, count = load_config(paths).server, len(load_keys(paths))
    there = f"{count} API key{'' if count == 1 else 's'}"
    if not server.is_open_to_network:
        return Finding("keys", True, f"{server.host} is for this machine alone; {there}")
    if not server.needs_key:
        return Finding("keys", True, f"{server.host} asks nobody for one (allow_network_without_key)")
    mend = "" if count else "llamamgr key create NAME"
    return Finding("keys", bool(count), f"{server.host} is for the network; {there}", mend)
