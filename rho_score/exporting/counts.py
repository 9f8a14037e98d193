"""How many documents and tokens an export wrote."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the documents of a part, or of many."""

    documents: int = 0
    """Documents of the selection."""
    documents_exported: int = 0
    """Those that are in the files; the others hold no token to train on."""
    tokens: int = 0
    """Tokens of the selection's documents."""
    tokens_exported: int = 0
    """Tokens of the exported documents."""
    tokens_kept: int = 0
    """Tokens of exported documents whose mask is True."""
    tokens_written: int = 0
    """Token ids in the files: `tokens_exported`, and prefixes, EOS, padding, repeated context."""
    tokens_trained: int = 0
    """Tokens that a trainer reading the files computes a loss for: `tokens_kept`, plus EOS with --train-eos, less those at
    the very beginning of a row or file, where no prefix stands before them."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})
