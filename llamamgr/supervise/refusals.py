"""What a refusal of the plan means to people: the error, its hint, and when to try again."""

from __future__ import annotations

from llamamgr.core.errors import BusyError, EngineError, LlamamgrError
from llamamgr.plan.events import RefuseRequest

OVERLOADED = "server busy, please try again.  maximum pending requests exceeded"  # Ollama's own words, two spaces included


def shutting_down() -> BusyError:
    return BusyError("llamamgr is shutting down", "send the request again once it runs", 5)


def refusal_error(command: RefuseRequest, model: str) -> LlamamgrError:
    """The error for the waiting request of ``command``; ``model`` is its name."""
    again = command.retry_after
    match command.why:
        case "queue_full":
            return BusyError(
                OVERLOADED, f"{command.detail}; scheduler.max_queue in config.toml is the limit", again
            )
        case "waited_too_long":
            return BusyError(
                f"{model} could not be loaded in time: {command.detail}",
                "try again when less is running",
                again,
            )
        case "cooling_down":
            hint = f"it is tried again in {again} s; `llamamgr logs {model}` shows its log"
            return BusyError(f"{model} keeps failing: {command.detail}", hint, again)
        case "too_big":
            hint = "choose a smaller quant or context, or raise scheduler.memory in config.toml"
            return BusyError(f"{model} does not fit into memory: {command.detail}", hint, 60)
        case "no_room":
            return BusyError(f"there is no room for {model} now: {command.detail}", "", 60)
        case "load_failed":
            return EngineError(
                f"{model} could not be loaded: {command.detail}", f"`llamamgr logs {model}` shows its log"
            )
