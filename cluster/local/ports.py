"""Free ports on loopback, outside the range from which the system hands out its own."""

from __future__ import annotations

import random
import socket

from pipelines.errors import SetupError

FIRST, LAST = 20_000, 32_000  # Linux's ephemeral ports begin at 32768


def free_ports(count: int, *, attempts: int = 2000) -> list[int]:
    """`count` different ports that nobody listens on now; another may take one before it is used."""
    chosen: list[int] = []
    for _ in range(attempts):
        port = random.randint(FIRST, LAST)
        if port not in chosen and is_free(port):
            chosen.append(port)
            if len(chosen) == count:
                return chosen
    raise SetupError(
        f"found {len(chosen)} free ports between {FIRST} and {LAST}, {count} are needed.",
        mend="stop what listens there: `ss -ltn` shows it.",
    )


def is_free(port: int) -> bool:
    """Whether this port can be bound on loopback and on all addresses."""
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as one:
            try:
                one.bind((host, port))
            except OSError:
                return False
    return True
