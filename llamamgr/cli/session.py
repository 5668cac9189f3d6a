"""A session on a terminal, as Ollama's users know it: what is typed is said to the model, or begins with ``/`` and is a command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamamgr.cli.chat import Chat

_QUOTES = '"""'
_HELP = '''\
  /set system TEXT           what the model is told before all else
  /set parameter NAME VALUE  such as temperature 0.2, num_ctx 8192, seed 1; stop may have several values
  /set think [LEVEL], nothink, verbose, quiet, format json, noformat, history, nohistory
  /show [info|license|modelfile|parameters|system|template]
  /load MODEL                go on with another model; the conversation begins anew
  /save NAME                 keep model, settings and conversation as a model
  /list                      the models there are
  /clear                     forget the conversation
  /bye                       leave, as Ctrl-D does
  /?                         this

  """ begins a text of several lines, and """ ends it. Ctrl-C ends an answer.'''
_SHOWN = ("info", "license", "modelfile", "parameters", "system", "template")


def hold(chat: Chat) -> None:
    """Talk until the person leaves. A failure or Ctrl-C ends what is being done, not the session."""
    session = _Session(chat)
    print("/? tells what may be typed here", file=sys.stderr)
    for text in _typed():
        try:
            session.take(text)
        except _Left:
            return


class _Left(Exception):  # noqa: N818 - nothing went wrong
    """The person has said goodbye."""


class _Session:
    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._commands: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/show": self._show,
            "/load": self._load,
            "/save": self._save,
            "/list": self._list,
            "/clear": self._clear,
            **dict.fromkeys(("/bye", "/exit", "/quit"), self._leave),
            **dict.fromkeys(("/?", "/help"), self._help),
        }

    def take(self, text: str) -> None:
        """Do or say what was typed; errors are shown here."""
        from llamamgr.core.errors import LlamamgrError
        from llamamgr.host.processes import TerminatedError

        try:
            if _is_command(text):
                self._obey(text.strip())
            elif said := _without_quotes(text):
                self._chat.turn(said)
        except TerminatedError:
            raise
        except KeyboardInterrupt:
            print()
        except LlamamgrError as error:
            print(f"error: {error}", file=sys.stderr)

    def _obey(self, line: str) -> None:
        from llamamgr.core.errors import UsageError

        word, rest = _split(line)
        command = self._commands.get(word.lower())
        if command is None:
            raise UsageError(f"unknown command {word}", "/? tells those there are")
        command(rest)

    # -- what may be set

    def _set(self, line: str) -> None:
        from llamamgr.core.errors import UsageError

        what, rest = _split(line)
        wishes = self._chat.wishes
        match what.lower(), rest:
            case "system", text if text:
                wishes.system = _without_quotes(text)
                print("the system message is set")
            case "parameter", text if text:
                self._set_parameter(text)
            case "think", level:
                wishes.think = level or True
                print(f"it thinks first{f', {level}' if level else ''}")
            case "nothink", "":
                wishes.think = False
                print("it does not think first")
            case ("verbose" | "quiet") as word, "":
                wishes.verbose = word == "verbose"
                print(f"timings are {'' if wishes.verbose else 'not '}shown")
            case "format", "json":
                wishes.format = "json"
                print("answers are JSON")
            case "noformat", "":
                wishes.format = ""
                print("answers are free text")
            case ("history" | "nohistory") as word, "":
                import readline

                readline.set_auto_history(word == "history")
                print(f"typed lines are {'' if word == 'history' else 'not '}remembered")
            case _:
                raise UsageError(
                    f"/set {line} says nothing that can be set".replace("  ", " "), "/? tells what can"
                )

    def _set_parameter(self, line: str) -> None:
        from llamamgr.core.modelfile import parameter_of

        name, value = _split(line)
        name, value = parameter_of(name, value.split() if name.lower() == "stop" else value)
        self._chat.wishes.options[name] = value
        print(f"{name} is {value}")

    # -- the others

    def _show(self, line: str) -> None:
        from llamamgr.cli.show import show
        from llamamgr.core.errors import UsageError

        what, wishes = line or "info", self._chat.wishes
        if what not in _SHOWN:
            raise UsageError(f"/show {what} shows nothing", f"there are: {', '.join(_SHOWN)}")
        if what == "system" and wishes.system:
            print(wishes.system)
            return
        show(self._chat.partner.model, **({} if what == "info" else {_FLAG.get(what, what): True}))
        if what == "parameters":
            for name, value in wishes.options.items():
                print(f"{name:<30} {value}  (set here)")

    def _load(self, model: str) -> None:
        from llamamgr.core.errors import UsageError

        if not model:
            raise UsageError("/load needs a model", "/list tells those there are")
        self._chat.partner.load(model)
        self._chat.said.clear()
        self._chat.wishes.system = ""
        print(f"{model} is loaded; the conversation begins anew, with its own system message")

    def _save(self, name: str) -> None:
        from llamamgr.core.errors import UsageError

        if not name:
            raise UsageError("/save needs a name for the model", "such as: /save my-assistant")
        self._chat.partner.save(name, self._chat.said, self._chat.wishes)
        print(f"{name} is saved")

    def _list(self, _: str) -> None:
        from llamamgr.cli.list import list_models

        list_models()

    def _clear(self, _: str) -> None:
        self._chat.said.clear()
        print("the conversation is forgotten")

    def _leave(self, _: str) -> None:
        raise _Left

    def _help(self, _: str) -> None:
        print(_HELP)


_FLAG = {"modelfile": "as_modelfile"}  # where the parameter of ``cli.show`` has another name


def _typed() -> Iterator[str]:
    """What is typed, text by text, until Ctrl-D; one of several lines whole and with its quotes."""
    import readline  # noqa: F401 - gives input() editing and history

    from llamamgr.host.processes import TerminatedError

    while True:
        try:
            text = _read()
        except EOFError:
            print()
            return
        except TerminatedError:
            raise
        except KeyboardInterrupt:
            print("\n/bye or Ctrl-D leaves")
            continue
        yield text


def _read() -> str:
    text = input(">>> ")
    while _is_open(text):
        text += "\n" + input("... ")
    return text


def _is_open(text: str) -> bool:
    """Whether quotes were opened, at the start of a text or of a system message, that no line has ended with yet."""
    start = text.find(_QUOTES)
    before = text[:start].strip()
    if start < 0 or (before and before.split() != ["/set", "system"]):
        return False
    opened = text[start:].rstrip()
    return not (len(opened) >= 2 * len(_QUOTES) and opened.endswith(_QUOTES))


def _without_quotes(text: str) -> str:
    text = text.strip()
    if text.startswith(_QUOTES) and text.endswith(_QUOTES) and len(text) >= 2 * len(_QUOTES):
        return text[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return text


def _is_command(text: str) -> bool:
    """A first word with a second ``/`` is the path of a file that the person talks about."""
    word = text.split(None, 1)[0] if text.strip() else ""
    return word.startswith("/") and "/" not in word[1:]


def _split(text: str) -> tuple[str, str]:
    word, _, rest = text.strip().partition(" ")
    return word, rest.strip()
