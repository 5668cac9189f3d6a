"""What a request asks of the plan: the child it would need, where that may live, what it takes and what bringing it back costs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config, ModelConfig
from llamamgr.core.gguf import GgufError, Header
from llamamgr.core.quants import CACHE_TYPES
from llamamgr.models.facts import load_header
from llamamgr.plan.events import HOST, ChildKey, Placement, Requested
from llamamgr.plan.memory import MIB, MICRO_BATCH, Files, Shape, best_shape, context_of
from llamamgr.plan.placement import NOTHING, PER_PROCESS, Known, is_open, placements
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.wishes import Wish, conflicts_of, key_of, stay_of, variant_of

_State = tuple[int, int]  # a file's size and its time of change, in ns

_HEADERS_KEPT = 64
# Options of the engine by which a part of the model is kept off the GPUs: only the engine can tell what then goes where.
_SPREADING = frozenset(
    ("gpu-layers", "n-gpu-layers", "cpu-moe", "n-cpu-moe", "n-cpu-ffn", "override-tensor", "device")
)
_SPREADING |= {"split-mode", "tensor-split", "main-gpu", "kv-offload", "no-kv-offload"}


class Estimates:
    """Joins the configuration, the files and what was measured; it decides nothing.

    ``card_of`` is the model of a name in the configuration's groups.
    """

    def __init__(
        self, config: Config, measured: Measured, card_of: Callable[[str], ModelCard | None] | None = None
    ) -> None:
        self.config = config
        self._measured = measured
        self._card_of = card_of or (lambda name: None)
        self._headers: OrderedDict[str, tuple[_State, Header]] = OrderedDict()

    def key(self, model: ModelCard, build: Build, options: LoadOptions, settings: ModelConfig) -> ChildKey:
        """The child that would do. A request that names no context wants the default: somebody else's small one would not do."""
        return key_of(model, build, options, settings, self._context(model, options))

    def conflicts(self, model: ModelCard) -> frozenset[str]:
        """Identities of the models it cannot live beside; may block, since the index may have to look at its folders."""
        return conflicts_of(model, self.config, self._card_of)

    def files(self, model: ModelCard, options: LoadOptions, settings: ModelConfig) -> Files:
        """What the files tell; reads their headers once, so it may block for some milliseconds."""
        beside = settings.adapters or model.adapters
        projector = settings.projector or model.projector
        draft = settings.draft_model if settings.draft_model.endswith(".gguf") else ""
        said = {name.lstrip("-"): str(value) for name, value in settings.flags.items()}
        reads_whole = {"embedding", "rerank"} & set(model.capabilities)
        return Files(
            header=self._header(model.path),
            beside=sum(_size(path) for path in (*beside, *([projector] if projector else []))),
            draft=self._header(draft) if draft else None,
            draft_size=_size(draft) if draft else 0,
            key_type=_cache_type(said.get("cache-type-k")),
            value_type=_cache_type(said.get("cache-type-v")),
            batch=self._context(model, options) if reads_whole else _batch(options, said),
            full_windows="swa-full" in said,
        )

    def wish(
        self,
        model: ModelCard,
        build: Build,
        options: LoadOptions,
        settings: ModelConfig,
        files: Files,
        main: int,
        gpus: Mapping[str, int],
    ) -> Wish:
        """The request with the shape of a child to be started for it: as many slots as its GPUs hold, else with main memory."""
        slots = settings.parallel or self.config.scheduler.parallel
        bare = Wish(model, build, Shape(0, 0, 0, 0), options, settings)
        variant, context = variant_of(bare), self._context(model, options)
        on = {} if options.gpu_layers == 0 else gpus
        on_gpus = sum(max(0, size - PER_PROCESS) for size in on.values())
        for limit in (on_gpus, sum(on.values()) + main):
            shape = best_shape(
                model, context, slots, limit, lambda one: self._need(bare, variant, one), files
            )
            if shape.need <= limit:
                break
        return msgspec.structs.replace(bare, shape=shape)

    def demand(
        self,
        request: int,
        wish: Wish,
        key: ChildKey,
        places: tuple[Placement, ...],
        keep_alive: float | None,
        conflicts: frozenset[str] = frozenset(),
    ) -> Requested:
        """The event for the plan. ``places`` are where the child lives or may live, ``conflicts`` as the event has them."""
        record = self._measured.record(wish, key.variant)
        return Requested(
            request=request,
            key=key,
            placements=places,
            slots=wish.shape.parallel,
            keep_alive=stay_of(self.config, wish.settings, keep_alive),
            start_key=msgspec.structs.replace(key, context=max(key.context, wish.shape.context)),
            priority=wish.settings.priority,
            conflicts=conflicts,
            reload_seconds=record.load_seconds if record else 1.0,
            pinned=wish.settings.pin,
            ttl=wish.settings.ttl_seconds,
        )

    def known(self, wish: Wish) -> Known:
        """What such a child took when it ran before."""
        record = self._measured.record(wish, variant_of(wish))
        return Known(record.whole, record.memory) if record else NOTHING

    def is_open(self, wish: Wish, known: Known, main: int, gpus: Mapping[str, int]) -> bool:
        """The engine's own figures may change where the child goes, or whether it fits at all."""
        need = wish.shape.need
        if not gpus or wish.options.gpu_layers == 0:
            return not known.alone and is_open(need, [main])
        if known.whole:
            whole = sum(size for device, size in known.whole.items() if device != HOST)
            return whole > sum(gpus.values())  # by which way to spread it, since it cannot be whole
        spreads = wish.options.gpu_layers > 0 or any(n.lstrip("-") in _SPREADING for n in wish.settings.flags)
        return spreads or is_open(need, [*gpus.values(), sum(gpus.values())])

    def places(
        self, wish: Wish, known: Known, gpus: Mapping[str, int], left: Mapping[str, int]
    ) -> tuple[Placement, ...]:
        """Where a child of ``wish`` may live, best first. ``left`` is what is not taken now of each of ``gpus``."""
        on_gpu = wish.options.gpu_layers != 0
        return placements(wish.shape, gpus, on_gpu=on_gpu, known=known, left=left)

    def _context(self, model: ModelCard, options: LoadOptions) -> int:
        return context_of(model, options.context, self.config.context)

    def _need(self, wish: Wish, variant: str, shape: Shape) -> int:
        """What such a child took when it ran before (and its prompt cache, which may not have been full), else the estimate."""
        record = self._measured.record(wish, variant, shape)
        took = (sum(record.whole.values()) or record.memory) if record else 0
        return took + shape.prompt_cache_mib * MIB if took else shape.need

    def _header(self, path: str) -> Header | None:
        """The header of a file, from memory if the file is what it was; None when it cannot be read, now."""
        try:
            found = Path(path).stat()
            state = (found.st_size, found.st_mtime_ns)
            known, header = self._headers.get(path, (None, None))
            if header is None or known != state:
                header = load_header(Path(path))[0]
                self._headers[path] = state, header
        except (OSError, GgufError):
            return None
        while len(self._headers) > _HEADERS_KEPT:
            self._headers.popitem(last=False)
        return header


def _batch(options: LoadOptions, said: Mapping[str, str]) -> int:
    value = said.get("ubatch-size", "")
    return int(value) if value.isdigit() else options.batch if options.batch > 0 else MICRO_BATCH


def _cache_type(said: str | None) -> str:
    return said.lower() if said and said.lower() in CACHE_TYPES else "f16"


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
