"""The command `gristmill`."""
