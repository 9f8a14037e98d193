"""The options of `rho-score dedup`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import Positional

from rho_score.config.corpus import CorpusConfig
from rho_score.config.option import Group, metavar

_ALIKE = Group("What counts as a duplicate")
_WORK = Group("Work")


@dataclass(frozen=True, kw_only=True)
class DedupConfig(CorpusConfig):
    """Write a corpus again without its exact and near duplicates.

    Documents are compared by the shingles that they share, with MinHash signatures. Of documents
    that are alike, the first in corpus order is kept, with all its own columns. What was dropped is
    listed with the document that was kept instead. The kept documents are in OUTPUT/data, which
    every command takes as a corpus.
    """

    on_token_files: ClassVar[str] = "are not read: remove duplicates before tokenizing"

    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The deduplicated corpus to write, as a path or as any fsspec URL."""

    similarity: Annotated[float, _ALIKE, metavar("SHARE")] = 0.8
    """How alike two documents must be: the shingles that they share, divided by the shingles that
    either has (the Jaccard similarity). It is estimated from the signatures."""
    shingle: Annotated[int, _ALIKE, metavar("WORDS")] = 5
    """The number of consecutive words in a shingle. Letter case and punctuation do not count. In
    scripts that are written without spaces, each character is a word."""
    permutations: Annotated[int, _ALIKE, metavar("N")] = 128
    """The numbers in a signature. More make the estimate of the similarity better and the work
    files larger."""

    units_per_part: Annotated[int, _WORK, metavar("N")] = 16
    """How many units make up one part at most. A part is one task, and one file of the output."""
    partitions: Annotated[int | None, _WORK, metavar("N")] = None
    """Into how many partitions the signatures are shuffled. Each is compared in the memory of one
    task. By default, a partition takes about half a GB. This changes no result."""
    workers: Annotated[int | None, _WORK, metavar("N")] = None
    """How many tasks run at the same time. By default, a few for each CPU of the cluster."""
    dry_run: Annotated[bool, _WORK] = False
    """Print the counts and the largest clusters, and write nothing. The work files are then in this
    machine's temporary folder, and the tasks are threads of this machine."""
