"""``llamamgr show``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from llamamgr.cli.output import human_size, print_json

if TYPE_CHECKING:
    from llamamgr.core.cards import ModelCard
    from llamamgr.core.config import ModelConfig
    from llamamgr.core.gguf import Header

Section = tuple[str, list[tuple[str, str]]]


def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name as `llamamgr list` shows it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what /api/show answers.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tell the file's metadata and tensors too.")
    ] = False,
    as_modelfile: Annotated[bool, typer.Option("--modelfile", help="Print a Modelfile of it.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Print its parameters only.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print its template only.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Print its system text only.")] = False,
    license: Annotated[bool, typer.Option("--license", help="Print its license only.")] = False,  # noqa: A002
) -> None:
    """Show what a model is, what it can do and where it is. Starts nothing."""
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config
    from llamamgr.models.index import Index

    paths = Paths.of_environment()
    config = load_config(paths)
    index = Index(paths, config)
    card = index.resolve(model)
    header = index.header(card, verbose)
    asked = {
        "modelfile": as_modelfile,
        "parameters": parameters,
        "template": template,
        "system": system,
        "license": license,
    }
    if any(asked.values()):
        _print_texts(card, header, [key for key, wanted in asked.items() if wanted])
        return
    if as_json:
        from llamamgr.models.details import show_answer

        print_json(show_answer(card, header, verbose))
        return
    own = _config_rows(config.settings_of(card.name), index.aliases().get(card.name, ()))
    for title, rows in _sections(card, header, own, verbose):
        _print_section(title, rows)


def _print_texts(card: ModelCard, header: Header, keys: list[str]) -> None:
    from llamamgr.models.details import show_answer

    answer = show_answer(card, header)
    for key in keys:
        typer.echo(str(answer.get(key, "")).rstrip("\n"))


def _config_rows(settings: ModelConfig, aliases: Sequence[str]) -> list[tuple[str, str]]:
    """What config.toml says of the model; of its environment the names alone."""
    import msgspec

    said = msgspec.to_builtins(settings)
    said |= {"aliases": list(aliases)} if aliases else {}
    said |= {"env": list(settings.env)} if settings.env else {}
    return [(key, _plain(value)) for key, value in said.items()]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_plain(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sections(card: ModelCard, header: Header, own: list[tuple[str, str]], verbose: bool) -> list[Section]:
    sections: list[Section] = [
        ("Model", _model_rows(card)),
        ("Capabilities", [(word, "") for word in card.capabilities]),
        ("Parameters", [*_setting_rows(card), *_sampling_rows(header)]),
        ("System", [(line, "") for line in card.system.splitlines()]),
        ("Messages", [(role, _shortened(text)) for role, text in card.messages]),
        ("In config.toml", own),
        ("Files", _file_rows(card)),
    ]
    if verbose:
        sections += [("Metadata", _metadata_rows(card, header)), ("Tensors", _tensor_rows(header))]
    return [(title, rows) for title, rows in sections if rows]


def _model_rows(card: ModelCard) -> list[tuple[str, str]]:
    from llamamgr.models.details import human_count

    return [
        ("name", card.name),
        ("architecture", card.arch),
        ("parameters", human_count(card.parameters)),
        ("quantization", card.quant or "unknown"),
        ("context length", str(card.context or "unknown")),
        ("embedding length", str(card.embedding or "unknown")),
        ("layers", str(card.layers or "unknown")),
        ("cache per token", human_size(card.kv_bytes_per_token)),
    ]


def _setting_rows(card: ModelCard) -> list[tuple[str, str]]:
    """Parameters that a Modelfile gave it."""
    return [
        (name, ", ".join(value) if isinstance(value, list) else str(value))
        for name, value in sorted(card.settings.items())
    ]


def _sampling_rows(header: Header) -> list[tuple[str, str]]:
    """Sampling defaults that the file itself carries."""
    prefix = "general.sampling."
    items = sorted(header.metadata.items())
    return [(key.removeprefix(prefix), str(value)) for key, value in items if key.startswith(prefix)]


def _file_rows(card: ModelCard) -> list[tuple[str, str]]:
    rows = [("source", card.source), ("size", human_size(card.size)), ("digest", card.digest[:12])]
    rows += [("model" if number == 0 else "", path) for number, path in enumerate(card.parts)]
    rows += [("projector", card.projector)] if card.projector else []
    rows += [("adapter", adapter) for adapter in card.adapters]
    return rows + ([("made of", card.parent)] if card.parent else [])


def _metadata_rows(card: ModelCard, header: Header) -> list[tuple[str, str]]:
    from llamamgr.models.details import model_info

    return [
        (key, _shortened(str(value))) for key, value in model_info(card, header).items() if value is not None
    ]


def _tensor_rows(header: Header) -> list[tuple[str, str]]:
    return [(one.name, f"{one.type.name} {list(one.shape)}") for one in header.tensors]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _print_section(title: str, rows: list[tuple[str, str]]) -> None:
    width = max(len(key) for key, _ in rows)
    print(f"  {title}")
    for key, value in rows:
        print(f"    {key.ljust(width)}    {value}".rstrip())
    print()
