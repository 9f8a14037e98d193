"""What a block says that a model reads, compared with the labels of a corpus of which every token is a target."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rho_score.stores.framing import IGNORED, Documents, Frame
from rho_score.training.block_files import BlockCounts, BlockFiles
from rho_score.training.blocks import ScoredBlocks

FRAMES = st.tuples(st.sampled_from([None, 0, 5]), st.sampled_from([None, 0, 7]), st.booleans())


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), size=st.integers(2, 14), frame=FRAMES)
def test_tokens_read_are_the_targets_where_nothing_is_masked(
    lengths: list[int], size: int, frame: tuple[int | None, int | None, bool]
) -> None:
    prefix_id, eos_id, train_eos = frame
    around = Frame(prefix_id=prefix_id, eos_id=eos_id, train_eos=train_eos and eos_id is not None)
    n = sum(lengths)
    documents = Documents(
        doc_ids=pa.array([str(i) for i in range(len(lengths))]),
        lengths=np.array(lengths),
        input_ids=np.arange(n, dtype=np.int32),
        mask=np.ones(n, bool),
    )
    framed = around.around(documents)
    ends = [int(end) - 1 == eos_id for end in np.cumsum(lengths)]  # a token's id is its place
    targets = framed.mask.copy()
    if prefix_id is None:
        targets[framed.starts] = False
    counts = BlockCounts(group_bytes=[])
    counts.tokens, counts.documents = len(targets), len(lengths)
    starts = np.append(framed.starts, len(targets))
    groups = np.zeros(len(lengths), np.int32)
    added = [start + n - 1 for start, n, own in zip(framed.starts, framed.lengths, ends, strict=True) if not own]
    places = np.array([] if eos_id is None else added, np.int64)
    files = BlockFiles(Path(), counts, framed.input_ids, targets, None, starts, groups, places)
    blocks = ScoredBlocks.of_files(files, around, size)
    found = [blocks.n_read(i) for i in range(len(blocks))]
    assert found == [int((blocks[i]["labels"] != IGNORED).sum()) for i in range(len(blocks))]
    assert sum(found) == int(targets[1:].sum())
