"""Files that lie beside shards and are none: those of exports, of Megatron-LM datasets and of tables.

Their names look like those of shards. Read as shards, they would be documents that nobody wrote.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from rho_score.config import CorpusConfig
from rho_score.corpus import token_shards
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder
from rho_score.safe_text import visible

Role = Literal["part", "other"]
PART: Role = "part"
"""The file belongs to a shard, and is read with it."""
OTHER: Role = "other"
"""The file is left out."""

_SUCCESS = "_SUCCESS.json"  # marks a finished store
_MASKS = {"_mask.bin": ".bin", "_mask.idx": ".idx", ".label_mask.npy": ".token_ids.npy"}  # beside tokens


def other_files(root: Folder, files: Mapping[str, FileInfo], corpus: CorpusConfig) -> dict[str, Role]:
    """The files that are no shards although their names may say so.

    files: all files below `root`.

    Raises:
        InputError: some files cannot be read as the layout that they belong to.
    """
    found = dict.fromkeys(_of_exports(files), OTHER)
    if corpus.token_files is not None:
        found |= _of_token_files(root, files)
    return found


def hint(files: Iterable[str], corpus: CorpusConfig) -> str:
    """Text to show behind the names of files that are left out: how they could be read."""
    if corpus.token_files is None and any(token_shards.is_name(name) for name in files):
        return f" (files of token ids named {token_shards.NAMES} are read with --token-files)"
    return ""


def _of_exports(files: Iterable[str]) -> list[str]:
    """The files of exports other than their documents."""
    folders = [name.removesuffix(_SUCCESS) for name in files if name.endswith(f"/{_SUCCESS}") or name == _SUCCESS]
    notes = tuple(f"{folder}{name}" for folder in folders for name in ("manifest.json", "parts/"))
    return [name for name in files if name.startswith(notes)]


def _of_token_files(root: Folder, files: Mapping[str, FileInfo]) -> dict[str, Role]:
    """The masks beside files of token ids, and the indices of Megatron-LM datasets.

    Raises:
        InputError: an index has no `.bin`.
    """
    found: dict[str, Role] = {}
    for name in files:
        mask = next((ending for ending in _MASKS if name.endswith(ending)), None)
        if mask is not None and name.removesuffix(mask) + _MASKS[mask] in files:
            found[name] = OTHER
    indices = {index for name in files if (index := token_shards.index_of(name)) != name}
    for name in files:
        if name.lower().endswith(".idx") and name not in found:
            if name not in indices and not root.exists(f"{name[:-4]}.bin"):
                raise InputError(
                    f"{visible(name)} is the index of a Megatron-LM dataset whose .bin is not there. Restore it, or take the index "
                    "out of the corpus."
                )
            found[name] = PART
    return found
