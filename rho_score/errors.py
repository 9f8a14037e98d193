"""What can go wrong, by exit code: 1 failed while running, 2 wrong usage or input (nothing was run)."""

from rho_score.safe_text import without_secrets


class RhoScoreError(Exception):
    """A run failed; the message says what, where and the remedy, and never a credential. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class InputError(RhoScoreError, ValueError):
    """Wrong usage or input, found before any work was done. Exit code 2."""

    exit_code = 2


class StorageError(RhoScoreError):
    """A storage refused, or failed for longer than it was tried; the message names the file or object. Exit code 1."""
