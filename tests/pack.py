"""The measured data that lies beside a checkout, not in it: labelled pages, a crawl with planted truth, broken files.

Found at GRISTMILL_TEST_DATA, or where CI puts it, in the folder `shared/data` beside the checkout. What needs it is
skipped with a reason where it is absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("GRISTMILL_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def pack(name: str) -> Path:
    """The path of one folder or file of the data; the test is skipped where it is absent."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no {name} in {FOLDER}; GRISTMILL_TEST_DATA names the folder of the test data")
    return path
