"""Loads the tokenizer that a store carries."""

from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedTokenizerBase

from rho_score.errors import InputError
from rho_score.models.directory import wants_own_code
from rho_score.models.tokenizer import prefix_id, read_tokenizer
from rho_score.stores.lineage import open_score_set
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from rho_score.stores.store import Store


def load_store_tokenizer(store: Store) -> PreTrainedTokenizerBase:
    """The tokenizer whose files the store carries.

    Raises:
        InputError: the tokenizer does not load, or needs its own Python code. The code of a store
            is never run.
    """
    with TemporaryDirectory() as directory:
        for name in store.folder.names("tokenizer"):
            (Path(directory) / name).write_bytes(store.folder.read(f"tokenizer/{name}"))
        try:
            return read_tokenizer(Path(directory), trust_remote_code=False)
        except Exception as error:  # the parser of tokenizer.json raises Exception itself
            if wants_own_code(error):
                raise InputError(
                    f"{store.folder.url}/tokenizer needs its own Python code, and the code of a store is never run. "
                    "Reports, exports and comparisons by bytes need a model that has a tokenizer.json."
                ) from error
            raise InputError(f"{store.folder.url}/tokenizer does not load: {error}. Restore its files.") from error


def scored_prefix(
    store: Selection | ScoreSet, tokenizer: PreTrainedTokenizerBase, *, given: str | None = None
) -> int | None:
    """The token that the first token of each document of a store was scored after; None without one.

    It is in the score set's manifest. If a selection's score set is not found, it is the
    tokenizer's own. given: as in `open_score_set`, also for the error.
    """
    scores = open_score_set(store, given) if isinstance(store, Selection) else store
    found: int | None = scores.manifest["parts"].get("prefix_id") if scores else prefix_id(tokenizer)
    return found
