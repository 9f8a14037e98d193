"""What can go wrong, by exit code: 1 failed while running, 2 wrong usage or input (nothing was run)."""


class RhoScoreError(Exception):
    """A run failed; the message says what, where and the remedy. Exit code 1."""

    exit_code = 1


class InputError(RhoScoreError, ValueError):
    """Wrong usage or input, found before any work was done. Exit code 2."""

    exit_code = 2


class StorageError(RhoScoreError):
    """A storage refused, or failed for longer than it was tried; the message names the file or object. Exit code 1."""
