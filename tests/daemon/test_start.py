"""What a daemon starts with."""

import logging

from llamamgr.daemon.start import _OneLine


def test_a_message_is_logged_in_one_line_and_a_traceback_in_its_own():
    form = _OneLine("%(levelname)s %(message)s")
    record = logging.LogRecord("x", logging.ERROR, "", 0, "it broke\nhint: mend %s", ("it",), None)
    assert form.format(record) == "ERROR it broke | hint: mend it"
    try:
        raise ValueError("bad")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    assert form.format(record).splitlines()[1] == "Traceback (most recent call last):"
