"""``llamamgr doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.core.config import Config
    from llamamgr.host.paths import Paths
    from llamamgr.instances.diagnosis import Finding


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Check compiler, cmake, ninja, git, arches, disk, port, instances and settings; each fault with the command that mends it.

    Ends with status 2 when config.toml or keys.toml has a mistake, 7 when something that llamamgr cannot do without is missing.
    """
    from llamamgr.core.errors import ConfigError, MissingToolError
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config
    from llamamgr.instances.diagnosis import findings

    paths, fault = Paths.of_environment(), None
    found = findings(paths)
    try:
        config = load_config(paths)
        found += (
            _port(paths, config),
            _keys(paths, config),
            *_certificate(config),
            *_settings(paths, config),
        )
    except ConfigError as error:
        fault = error  # what needs no configuration is told first
    if as_json:
        import json

        import msgspec

        print(json.dumps({"findings": msgspec.to_builtins(found)}, indent=2))
    else:
        _print(found)
    if fault is not None:
        raise fault
    if any(finding.required and not finding.good for finding in found):
        raise typer.Exit(MissingToolError.exit_code)


def _print(found: tuple[Finding, ...]) -> None:
    width = max(len(finding.name) for finding in found)
    for finding in found:
        mark = ("✓" if finding.good else "✗") if finding.applies else "·"
        print(f"{mark} {finding.name.ljust(width)}  {finding.text}")
        for line in filter(None, finding.mend.split("; ")):
            print(f"{' ' * (width + 4)}→ {line}")


def _certificate(config: Config) -> tuple[Finding, ...]:
    import time

    from llamamgr.core.errors import ConfigError
    from llamamgr.host.tls import examine
    from llamamgr.instances.diagnosis import Finding

    server = config.server
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


def _settings(paths: Paths, config: Config) -> list[Finding]:
    """Those that will not do what they are there for."""
    from llamamgr.daemon.advice import advice
    from llamamgr.instances.diagnosis import Finding
    from llamamgr.models.index import Index

    return [
        Finding("config", False, str(told), told.hint) for told in advice(config, paths, Index(paths, config))
    ]


def _port(paths: Paths, config: Config) -> Finding:
    from llamamgr.daemon.client import Control
    from llamamgr.host.ports import holder_of
    from llamamgr.instances.diagnosis import Finding

    address = config.server.address
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


def _keys(paths: Paths, config: Config) -> Finding:
    from llamamgr.host.keys_file import load_keys
    from llamamgr.instances.diagnosis import Finding

    server, count = config.server, len(load_keys(paths))
    there = f"{count} API key{'' if count == 1 else 's'}"
    if not server.is_open_to_network:
        return Finding("keys", True, f"{server.host} is for this machine alone; {there}")
    if not server.needs_key:
        return Finding("keys", True, f"{server.host} asks nobody for one (allow_network_without_key)")
    mend = "" if count else "llamamgr key create NAME"
    return Finding("keys", bool(count), f"{server.host} is for the network; {there}", mend)
