"""What the writer of a token format does."""

from typing import Protocol

from rho_score.stores.framing import Documents


class Writer(Protocol):
    """Takes the documents of a part batch by batch, and makes the part's files."""

    written: int
    """Token ids in the files: documents, prefixes, EOS, padding and repeated context."""
    trained: int
    """Those that a trainer computes a loss for when it reads the files."""

    def add(self, documents: Documents) -> None:
        """Appends documents."""

    def files(self) -> dict[str, bytes]:
        """The part's files by what follows the part's name. Without documents there are none."""
