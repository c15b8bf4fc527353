"""Deflate streams undone by zlib-ng, which takes three fifths of zlib's time; by zlib where it is not installed.

Both give the same bytes of a sound stream.  Whoever meets `InflateError` here asks zlib again, so that what is said of
a broken one, and what can be read of it, is the same on every machine.
"""

from __future__ import annotations

import zlib
from typing import Any

try:
    from zlib_ng import zlib_ng as _fast
except ImportError:  # the base install, which reads single pages
    _fast = zlib

InflateError: type[Exception] = _fast.error
IS_FAST = _fast is not zlib


def inflater(wbits: int) -> Any:
    """A new decompression object with zlib's interface; `wbits` as zlib has them (31: gzip)."""
    return _fast.decompressobj(wbits)
