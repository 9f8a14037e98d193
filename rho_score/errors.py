"""The errors of rho-score, each with its exit code.

Exit code 1 means that a run failed. Exit code 2 means that the usage or the input is wrong, and
that nothing was run.
"""

from rho_score.safe_text import without_secrets


class RhoScoreError(Exception):
    """A run failed. Exit code 1.

    The message says what is wrong, where, and how to mend it. It never holds a credential.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class InputError(RhoScoreError, ValueError):
    """The usage or the input is wrong, and no work was done. Exit code 2."""

    exit_code = 2


class StorageError(RhoScoreError):
    """A storage refused a call, or failed until the retries ended. Exit code 1.

    The message names the file or object.
    """


class ServerError(RhoScoreError):
    """A model's server denied a request, or failed until the retries ended. Exit code 1.

    The message names the server and what it said.
    """
