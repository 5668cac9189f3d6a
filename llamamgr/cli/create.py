"""``llamamgr create``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.core.cards import ModelCard
    from llamamgr.core.modelfile import Modelfile
    from llamamgr.host.paths import Paths
    from llamamgr.models.create import Quantizer, Wanted
    from llamamgr.models.index import Index

_NAMES = ("Modelfile", "modelfile", "Mullamafile", "mullamafile")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the model shall be called.")],
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="[./Modelfile]; - is stdin.")
    ] = "",
    quantize: Annotated[
        str,
        typer.Option(
            "--quantize", "-q", metavar="TYPE", help="Such as Q4_K_M, of an F16, BF16 or F32 model."
        ),
    ] = "",
) -> None:
    """Make a model of a Modelfile. Weights stay where they are; a base that is not here is pulled."""
    from llamamgr.cli.stage_progress import telling
    from llamamgr.cli.transfer_progress import show
    from llamamgr.core.names import ModelName
    from llamamgr.daemon.client import tell_of_models
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config, place_of
    from llamamgr.models import create as making
    from llamamgr.models.index import Index
    from llamamgr.models.sources import OWN

    wanted_name = ModelName.parse(name)
    said, folder = _read(file)
    _check(said)
    paths = Paths.of_environment()
    config = load_config(paths)
    index = Index(paths, config)
    wanted = _wanted(wanted_name.short, said, folder, index, paths, quantize)
    with telling() as tell:
        making.create(
            index.store,
            wanted,
            lambda progress: show(
                {"status": progress.status, "total": progress.total, "completed": progress.completed}, tell
            ),
            _quantizer(paths) if quantize else None,
        )
    tell_of_models(paths)
    if OWN not in config.sources:
        typer.echo(
            f"warning: {wanted_name.short} will be in no list: {place_of('sources')} leaves the store out; "
            f'add "{OWN}" to it',
            err=True,
        )
        return
    typer.echo(f'next: llamamgr run {wanted_name.short} "hello"')


def _read(file: str) -> tuple[Modelfile, Path]:
    """What the Modelfile says, and the folder that its paths start from."""
    import sys

    from llamamgr.core.errors import NotFoundError

    if file == "-":
        return _parsed(sys.stdin.buffer.read(), "standard input"), Path.cwd()
    candidates = [Path(file).expanduser()] if file else [Path(name) for name in _NAMES]
    for path in candidates:
        if path.is_file():
            return _parsed(path.read_bytes(), str(path)), path.absolute().parent
    raise NotFoundError(
        f"there is no {file or 'Modelfile here'}", "write one that begins with FROM, or name it with -f"
    )


def _parsed(data: bytes, origin: str) -> Modelfile:
    """A fault is told with the file that has it; the line is told already, in Ollama's words."""
    from llamamgr.core.errors import UsageError
    from llamamgr.core.modelfile import parse_modelfile

    try:
        return parse_modelfile(data)
    except UsageError as error:
        gap = " " if error.what.startswith("(line ") else ": "
        raise UsageError(f"{origin}{gap}{error.what}", error.hint) from None


def _check(said: Modelfile) -> None:
    """Refuse a template that cannot be rendered, and say what has no effect."""
    from llamamgr.core.errors import UsageError
    from llamamgr.wire.errors import DialectError
    from llamamgr.wire.ollama_models import check_template

    try:
        check_template(said.template)
    except DialectError as error:
        raise UsageError(
            error.message, "mend TEMPLATE, or leave it out: the file's own is applied then"
        ) from None
    for name in said.ignored:
        typer.echo(f"warning: PARAMETER {name} does nothing any more", err=True)
    for command in ("renderer", "parser", "requires"):
        if getattr(said, command):
            typer.echo(f"warning: {command.upper()} means nothing to llama.cpp", err=True)


def _wanted(name: str, said: Modelfile, folder: Path, index: Index, paths: Paths, quantize: str) -> Wanted:
    from llamamgr.core.errors import UsageError
    from llamamgr.core.names import ModelName
    from llamamgr.models.create import Wanted

    files = [path for base in said.bases for path in _files(base, folder)]
    base: ModelCard | None = None
    if not files:
        if len(said.bases) > 1:
            raise UsageError("FROM names two models", "a projector is given by the path of its file")
        base = _base(said.bases[0], index, paths)
    return Wanted(
        ModelName.parse(name),
        base,
        parent=base.name if base else "",
        files=tuple(files),
        adapters=tuple(path for adapter in said.adapters for path in _adapters(adapter, folder)),
        template=said.template,
        system=said.system,
        settings=said.parameters,
        messages=said.messages or None,
        licenses=said.licenses,
        quantize=quantize,
    )


def _files(text: str, folder: Path) -> list[Path]:
    """The GGUF files that a FROM line names by path; none when it is a model's name."""
    from llamamgr.core.errors import NotFoundError, UsageError

    path = folder / Path(text).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(path.glob("*.gguf"))
        if not found:
            raise UsageError(
                f"{path} holds no GGUF file", f"make one first: llamamgr convert --input {path} --output …"
            )
        return found
    if text.startswith(("/", "./", "../", "~")) or text.endswith(".gguf"):
        raise NotFoundError(f"there is no file {path}", "paths start from the Modelfile's folder")
    return []


def _adapters(text: str, folder: Path) -> list[Path]:
    from llamamgr.core.errors import NotFoundError

    found = _files(text, folder)
    if not found:
        raise NotFoundError(f"there is no adapter {folder / text}", "paths start from the Modelfile's folder")
    return found


def _base(name: str, index: Index, paths: Paths) -> ModelCard:
    from llamamgr.cli.transfer_progress import follow
    from llamamgr.core.errors import LlamamgrError, NotFoundError
    from llamamgr.daemon.spawn import ensure_daemon

    try:
        return index.resolve(name)
    except NotFoundError as missing:
        control = ensure_daemon(paths)
        try:
            follow(control.lines("/api/pull", {"model": name}))
        except LlamamgrError as error:
            what = f"FROM {name}: there is no such model here, and it cannot be pulled: {error.what}"
            raise type(error)(what, missing.hint) from None
        index.refresh()
        return index.resolve(name)


def _quantizer(paths: Paths) -> Quantizer:
    from llamamgr.cli.engine import ready_engine
    from llamamgr.daemon.quantizing import quantizer_of

    return quantizer_of(lambda: ready_engine(paths), paths.data / "locks")
