"""A process that does nothing but sleep 50 ms again and again until its input ends; then it prints how late it woke.

What it prints, the seconds that 99 % of its sleeps were not late by, is this machine's own share in anybody's lateness.
"""

from __future__ import annotations

import select
import sys
import time

INTERVAL = 0.05


def main() -> None:
    late = []
    while True:
        due = time.monotonic() + INTERVAL
        if select.select([sys.stdin], [], [], INTERVAL)[0]:
            break
        late.append(max(0.0, time.monotonic() - due))
    late.sort()
    print(late[int(0.99 * len(late))] if late else 0.0)


main()
