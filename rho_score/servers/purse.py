"""What a client pays its requests from."""

from abc import ABC, abstractmethod

from rho_score.errors import InputError, RhoScoreError


class UnpaidError(RhoScoreError):
    """There is no money left for a request, which is not made."""


class Purse(ABC):
    """Tokens that may be sent. Every try of a request is paid before it is made."""

    @abstractmethod
    def take(self, tokens: int) -> None:
        """Pays for a request of so many tokens.

        Raises:
            UnpaidError, InputError: there is no money left for it.
        """

    @abstractmethod
    def give_back(self, tokens: int) -> None:
        """Takes back what was paid for a request that the server did not work on."""


class FreePurse(Purse):
    """Has no end, and counts what was sent."""

    def __init__(self) -> None:
        self.sent = 0
        """Tokens of the requests that were made, those that were made again included."""

    def take(self, tokens: int) -> None:
        self.sent += tokens

    def give_back(self, tokens: int) -> None:
        self.sent -= tokens


class LimitedPurse(FreePurse):
    """Has so many tokens. The driver checks a server with it."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def take(self, tokens: int) -> None:
        if self.sent + tokens > self._most:
            raise InputError(
                f"--spend-at-most leaves {self._most:,} tokens, and the check of the server alone needs more. Give more. "
                "Nothing was scored."
            )
        super().take(tokens)
