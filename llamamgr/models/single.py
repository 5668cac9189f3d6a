"""One model by the path of its file, wherever that lies; the index is not asked."""

from __future__ import annotations

from pathlib import Path

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError, UsageError
from llamamgr.core.gguf_facts import part_base
from llamamgr.models.facts import read_facts
from llamamgr.models.scan import Found, assemble


def card_of_file(path: Path) -> ModelCard:
    """The model that ``path`` is, or is a part of, with the projector that lies beside it.

    ``NotFoundError`` when there is no such file, ``UsageError`` with the reason when it is no whole model.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        raise NotFoundError(
            f"there is no file {path}", "check the path; `llamamgr list` shows the models that have a name"
        )
    found = [_found(file) for file in _family(path)]
    listing = assemble([(read_facts(file.path, file.size, file.modified), file) for file in found])
    for card in listing.models:
        if str(path) in card.parts:
            return card
    reasons = [skipped.reason for skipped in listing.skipped if skipped.path == str(path)]
    reasons += [
        skipped.reason for skipped in listing.skipped if part_base(Path(skipped.path).stem) in path.name
    ]
    why = reasons[0] if reasons else "it is a projector, an adapter or another part of a model"
    raise UsageError(f"{path} cannot be run: {why}", "name the GGUF file of a whole language model")


def _family(path: Path) -> list[Path]:
    """The file itself, its other parts, and the projectors of its folder."""
    base = part_base(path.stem)
    others = (
        file
        for file in path.parent.iterdir()
        if file.suffix.lower() == ".gguf"
        and file != path
        and ("mmproj" in file.name.lower() or (base != path.stem and part_base(file.stem) == base))
    )
    return [path, *sorted(others)]


def _found(file: Path) -> Found:
    info = file.stat()
    return Found(str(file), info.st_size, info.st_mtime_ns, "file")
