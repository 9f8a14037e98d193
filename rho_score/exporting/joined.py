"""Joins the parts of an export of flat files into one file `train`, and one `val` if asked for.

OUT/pieces/part-00000.train.…   what the tasks wrote; removed at the end
OUT/data/train.bin …            the pieces one after another
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rho_score.exporting.megatron import index_lengths, megatron_index
from rho_score.exporting.settings import MASK_DTYPE, ExportSettings
from rho_score.files.folder import Folder
from rho_score.ranking.sampling import uniforms
from rho_score.stores.framing import Documents

PIECES = "pieces"
SPLITS = ("train", "val")


def in_val(documents: Documents, share: float) -> np.ndarray:
    """True for each document that belongs to `val`, bool[n_docs]: about `share` of them, by their ids."""
    one_each = np.ones(len(documents.lengths), np.int64)
    found: np.ndarray = uniforms("val", documents.doc_ids.to_pylist(), one_each) < share
    return found


def join(settings: ExportSettings, parts: Sequence[str]) -> tuple[dict[str, int], int, int]:
    """Joins the pieces of all parts, in their order.

    Returns the names and sizes of the files, the tokens that joining added, and the tokens of the
    mask that are no targets because they begin a file.
    """
    output = Folder(settings.output)
    there = output.names(PIECES)
    sizes: dict[str, int] = {}
    added = lost = 0
    for split in SPLITS:
        endings = sorted({name.partition(f".{split}")[2] for name in there if f".{split}" in name})
        for ending in endings:
            names = [f"{part}.{split}{ending}" for part in parts if f"{part}.{split}{ending}" in there]
            with tempfile.TemporaryDirectory(prefix="rho-score-export-") as folder:
                target = Path(folder) / "joined"
                if ending.endswith(".idx"):
                    lengths = [index_lengths(output.read(f"{PIECES}/{name}")) for name in names]
                    dtype = MASK_DTYPE if "_mask" in ending else settings.token_dtype
                    target.write_bytes(megatron_index(np.concatenate(lengths), dtype))
                else:
                    began, cleared = _concatenate(settings, output, names, target, ending)
                    added, lost = added + began, lost + cleared
                output.publish_file(f"data/{split}{ending}", target)
                sizes[f"{split}{ending}"] = target.stat().st_size
    return sizes, added, lost


def _concatenate(
    settings: ExportSettings, output: Folder, names: Sequence[str], target: Path, ending: str
) -> tuple[int, int]:
    """Writes the pieces one after another, as a stream that begins with its prefix.

    Returns how many tokens were put before them, and how many tokens of the mask begin the file
    and are therefore no targets.
    """
    begin = settings.stream_begins_with if settings.format != "megatron" else None
    kind = {".bin": settings.token_dtype.newbyteorder("<"), ".mask": MASK_DTYPE}.get(ending, np.dtype("<f2"))
    lost = 0
    with target.open("wb") as file:
        if begin is not None:
            first = begin if ending == ".bin" else 0 if ending == ".mask" else np.nan
            file.write(np.array([first], kind).tobytes())
        for place, name in enumerate(names):
            content = output.read(f"{PIECES}/{name}")
            if not place and begin is None and ending == ".mask":
                lost = content[0]
                content = b"\0" + content[1:]
            file.write(content)
    return int(begin is not None and ending == ".bin"), lost
