"""Where a server is, and the key that it asks for."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from rho_score.errors import InputError

KEY_VARIABLE = "RHO_SCORE_SERVER_KEY"
"""The environment variable with the server's API key."""


class Key:
    """An API key, which no message, log or representation shows."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Key(…)"

    def headers(self) -> dict[str, str]:
        """The headers that carry the key; none for an empty key."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def hidden_in(self, text: str) -> str:
        """The text without the key, in case a server sends it back."""
        return text.replace(self._value, "…") if self._value else text


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server's address, without the path of any call, and its key."""

    url: str
    key: Key

    @classmethod
    def of(cls, url: str) -> "Endpoint":
        """The server at `url`, with or without /v1 at its end, and the key from the environment.

        Raises:
            InputError: it is not the address of a web server, or it holds a password or a query; or
                the key cannot be sent in a header.
        """
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is no number
            valid = False
        if not valid:
            raise InputError(f"--server takes an address such as http://127.0.0.1:8000, got {url!r}.")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(
                f"--server takes an address without a user, a query or a fragment. Give an API key as the environment variable "
                f"{KEY_VARIABLE}."
            )
        key = os.environ.get(KEY_VARIABLE, "")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"the key in {KEY_VARIABLE} has characters that no header can carry. Copy it again.")
        path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
        return cls(url=f"{parts.scheme}://{parts.netloc}{path}", key=Key(key))
