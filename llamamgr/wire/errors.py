"""What can be wrong with bytes: a client's request (``DialectError``) or a peer's answer (``ProtocolError``).

::

    DialectError             a client's request is wrong; knows its HTTP status
    ProtocolError            a peer's bytes break the protocol
    └── PrematureEndError    the connection closed before the answer was complete

Neither is shown to people as it is: the proxy renders them in the client's dialect.
"""

from __future__ import annotations

from collections.abc import Sequence


class DialectError(Exception):
    """A request that its dialect does not allow.

    ``message`` is worded as clients of that dialect know it; ``status`` is HTTP's. ``param`` names the field
    at fault and ``code`` the kind of mistake, for dialects that tell them. ``retry_after`` is seconds, 0 for none.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after


class ProtocolError(Exception):
    """A peer's bytes break the protocol.

    ``before`` holds the events that the same bytes gave before the mistake.
    """

    def __init__(self, message: str, before: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.before = tuple(before)


class PrematureEndError(ProtocolError):
    """The connection closed before the answer was complete.

    ``started`` tells whether any byte of it had come.
    """

    def __init__(self, message: str, *, started: bool) -> None:
        super().__init__(message)
        self.started = started
