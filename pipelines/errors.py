"""The error tree; each error says what was found, where, and the mend.

    GristmillError (exit 1)
      ConfigError (2)  InputError (3)  StoreError (4)  IntegrityError (5)  SetupError (6)  ConflictError (7)

Only the message is positional: exceptions cross process borders by pickle, which rebuilds them from
`args` and `__dict__`, so further required arguments would hide the cause on its way out of a worker.
"""

from __future__ import annotations


class GristmillError(Exception):
    """Anything the platform reports to a person; `mend` says what to do, `key` names the object concerned."""

    exit_code = 1

    def __init__(self, message: str, *, key: str | None = None, mend: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.mend = mend

    def __str__(self) -> str:
        """The message, with the mend on its own line."""
        return f"{self.args[0]}\n  mend: {self.mend}" if self.mend else str(self.args[0])


class ConfigError(GristmillError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class InputError(GristmillError):
    """The input data cannot be used."""

    exit_code = 3


class StoreError(GristmillError):
    """The object store refused, is absent, or cannot do what a commit needs."""

    exit_code = 4


class MissingObjectError(StoreError):
    """The object is not in the store."""


class IntegrityError(GristmillError):
    """Stored bytes or books are not what the manifest says."""

    exit_code = 5


class SetupError(GristmillError):
    """Java, ports, memory, disk or versions do not serve."""

    exit_code = 6


class ConflictError(GristmillError):
    """Somebody else holds it, or committed first."""

    exit_code = 7
