"""The closed vocabulary of the ledger: why a record was rejected, failed or changed."""

from __future__ import annotations

REASONS: dict[str, str] = {}
