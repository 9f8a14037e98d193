"""How many documents and tokens an export wrote."""

from dataclasses import dataclass

from rho_score.stores.counts import Summed


@dataclass(frozen=True, kw_only=True)
class ExportCounts(Summed):
    """The documents and tokens of one part of an export, or of several."""

    documents: int = 0
    """Documents of the selection."""
    documents_exported: int = 0
    """Documents in the files. The others have no token to train on."""
    tokens: int = 0
    """Tokens of the selection's documents."""
    tokens_exported: int = 0
    """Tokens of the exported documents."""
    tokens_kept: int = 0
    """Tokens of the exported documents whose mask is True."""
    tokens_written: int = 0
    """Token ids in the files: `tokens_exported`, prefixes, EOS, padding and repeated context."""
    tokens_trained: int = 0
    """Tokens that a trainer computes a loss for when it reads the files. They are `tokens_kept`,
    plus EOS with --train-eos, minus tokens at the start of a row or file without a prefix."""
