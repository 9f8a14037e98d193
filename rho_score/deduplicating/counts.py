"""What became of the documents of a corpus that was deduplicated."""

from dataclasses import dataclass

from rho_score.stores.counts import Summed


@dataclass(frozen=True, kw_only=True)
class DedupCounts(Summed):
    """Counts of a group or of all: documents = kept + exact + near + unreadable."""

    documents: int = 0
    kept: int = 0
    exact: int = 0
    """Dropped, because their text is that of the document that was kept instead."""
    near: int = 0
    """Dropped, because they are similar to a kept document, directly or through others."""
    unreadable: int = 0
    """Left out, because they have no text that can be read."""
    bytes: int = 0
    """UTF-8 bytes of the texts of all readable documents."""
    bytes_kept: int = 0

    @property
    def dropped(self) -> int:
        """Documents that are not in the output because another one is."""
        return self.exact + self.near
