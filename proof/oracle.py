"""The oracle of regime A: which tokens are noise. Nothing but this module and the corpora know it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from rho_score.stores.score_set import ScoreSet


def noise_of(text: str, begins: list[int], ends: list[int], tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """True for each token of which a character is noise, bool[n_tokens]."""
    offsets = np.array(tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"])
    noisy = np.zeros(len(text) + 1, np.int64)
    for begin, end in zip(begins, ends, strict=True):
        noisy[begin:end] = 1
    before = np.concatenate([[0], np.cumsum(noisy)])
    found: np.ndarray = before[offsets[:, 1]] > before[offsets[:, 0]]
    return found


class Oracle:
    """The noise of a corpus, by document."""

    def __init__(self, texts: Mapping[str, str], noise: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        """texts: of the documents, by id. noise: the file that says where it lies."""
        spans = {row["id"]: (row["begin"], row["end"]) for row in pq.read_table(noise).to_pylist()}
        self._noise = {name: noise_of(text, *spans[name], tokenizer) for name, text in texts.items()}

    def of(self, doc_ids: list[str]) -> np.ndarray:
        """True for each token of these documents that is noise, bool[n_tokens]."""
        return np.concatenate([self._noise[doc_id] for doc_id in doc_ids])

    def write_scores(self, like: str, output: Path) -> None:
        """Writes a score set in which noise has a loss of one and everything else of zero.

        like: a score set of the same corpus, which is copied otherwise.
        """
        building = output.with_suffix(".building")
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(like, building)
        for path in sorted((building / "data").glob("*.parquet")):
            table = pq.read_table(path)
            losses = table["loss"].combine_chunks()
            values = pa.array(self.of(table["doc_id"].to_pylist()).astype(np.float32))
            assert len(values) == len(losses.flatten())
            made = pa.ListArray.from_arrays(losses.offsets, values, type=losses.type)
            known = {key: value for key, value in pq.read_metadata(path).metadata.items() if key != b"ARROW:schema"}
            with pq.ParquetWriter(path, table.schema) as writer:
                writer.write_table(
                    table.set_column(table.schema.get_field_index("loss"), table.schema.field("loss"), made)
                )
                writer.add_key_value_metadata(known)
        building.rename(output)

    def auc(self, reference: str, base: str) -> dict[str, float]:
        """How well scores tell clean tokens from noise: the chance that a clean one ranks higher.

        By "excess", by low "reference" loss, and by high "base" loss.
        """
        found: list[list[np.ndarray]] = []
        ref, early = ScoreSet.open(reference), ScoreSet.open(base)
        for unit in ref.units:
            tables = [scores.unit_table(unit.unit, ["doc_id", "loss"]) for scores in (ref, early)]
            losses = [table["loss"].combine_chunks().flatten().to_numpy(zero_copy_only=False) for table in tables]
            found.append([*losses, self.of(tables[0]["doc_id"].to_pylist())])
        of_reference, of_base, noise = (np.concatenate(of) for of in zip(*found, strict=True))
        scores = {"excess": of_base - of_reference, "reference": -of_reference, "base": of_base}
        return {name: auc(of, ~noise) for name, of in scores.items()}


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve, by the ranks of Mann and Whitney; ties count half."""
    known = ~np.isnan(scores)
    scores, positive = scores[known], positive[known]
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    n = int(positive.sum())
    return float((ranks[inverse][positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))
