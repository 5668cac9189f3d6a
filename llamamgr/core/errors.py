"""The error tree, its exit codes and its HTTP statuses, in one place.

::

    LlamamgrError                      exit  HTTP
    ├── UsageError                        2   400   the request itself is wrong
    │   ├── ConfigError                   2   500   a config file or key is wrong: the operator's mistake, no client's
    │   └── InvalidNameError              2   400   a model or instance name that cannot be one
    ├── DaemonUnreachableError            3   503   no daemon answers on the control socket
    ├── NotFoundError                     4   404   a model, instance, build or file that is not there
    ├── ConflictError                     5   409   exists already, is locked or in use
    ├── SourceUnreachableError            6   502   a git host, index or registry does not answer
    ├── MissingToolError                  7   503   a compiler, tool, toolkit or instance is missing
    ├── BuildFailedError                  8   500   configure, compile or install failed
    ├── VerifyFailedError                 9   500   a build gave wrong answers
    ├── DeadlineError                    10   504   something took longer than it may
    ├── PermissionDeniedError            11   403   the system or the engine's rules refuse
    ├── DiskFullError                    12   507   no space left
    ├── EngineError                      13   502   a llama-server failed or died
    └── BusyError                        14   503   a queue or budget is full; carries Retry-After seconds

Exit 1 is any other failure, 130 an interrupt. Every error says what happened to what, and what to do next (``hint``).
"""

from __future__ import annotations

import errno
from typing import ClassVar

# header of the daemon's answers to the command line: several kinds of errors share a status
EXIT_CODE = "X-Exit-Code"


class LlamamgrError(Exception):
    """Base of all errors shown to people: ``what`` is a full sentence naming the thing, ``hint`` the next step."""

    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\nhint: {self.hint}" if self.hint else self.what


class UsageError(LlamamgrError):
    exit_code, status = 2, 400


class ConfigError(UsageError):
    status = 500


class InvalidNameError(UsageError):
    pass


class DaemonUnreachableError(LlamamgrError):
    exit_code, status = 3, 503


class NotFoundError(LlamamgrError):
    exit_code, status = 4, 404


class ConflictError(LlamamgrError):
    exit_code, status = 5, 409


class SourceUnreachableError(LlamamgrError):
    exit_code, status = 6, 502


class MissingToolError(LlamamgrError):
    exit_code, status = 7, 503


class BuildFailedError(LlamamgrError):
    exit_code, status = 8, 500


class VerifyFailedError(LlamamgrError):
    exit_code, status = 9, 500


class DeadlineError(LlamamgrError):
    exit_code, status = 10, 504


class PermissionDeniedError(LlamamgrError):
    exit_code, status = 11, 403


class DiskFullError(LlamamgrError):
    exit_code, status = 12, 507


class EngineError(LlamamgrError):
    exit_code, status = 13, 502


class BusyError(LlamamgrError):
    exit_code, status = 14, 503

    def __init__(self, what: str, hint: str = "", retry_after: int = 1) -> None:
        super().__init__(what, hint)
        self.retry_after = retry_after


def kind_of_exit(code: int) -> type[LlamamgrError] | None:
    """The kind of error that a command ended with; None for a code that no kind has."""
    return next((kind for kind in LlamamgrError.__subclasses__() if kind.exit_code == code), None)


def system_error(error: OSError) -> LlamamgrError:
    """The error to show for one of the system's own that nobody expected."""
    what = f"{error.filename or 'the system'}: {error.strerror or error}"
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return PermissionDeniedError(what, "make it writable, or set LLAMAMGR_HOME to a folder that is")
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFullError(what, "free some space on that disk")
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR | errno.ELOOP:
            return UsageError(what, "a folder is expected where something else is; check LLAMAMGR_HOME")
        case _:
            return LlamamgrError(what, "`llamamgr doctor` looks at the machine")
