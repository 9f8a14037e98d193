"""Counts documents, bytes and tokens of a corpus, or estimates them from a part of it.

A small corpus is read whole.
"""

import datetime
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rho_score.config import PlanConfig
from rho_score.corpus.columns import Columns, Document
from rho_score.corpus.content import columns_of, documents_of
from rho_score.corpus.formats import format_of
from rho_score.corpus.plan import Plan
from rho_score.corpus.units import Unit
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.models.content import Encoded, Encoder
from rho_score.models.tokenizer import load_tokenizer, split_id
from rho_score.safe_text import visible
from rho_score.scoring.sent_tokens import SentTokens

SAMPLED_UNITS = 8  # per format
BYTES_PER_TOKEN = 4.0
READ_BYTES = 64 << 20  # most bytes of text that are read
ROW_BYTES = 16  # added for each row, so that rows without text count too
EXPANDS = 4  # text may be so many times what the plan guesses for compressed shards and Parquet
# A corpus with at most this much text and this many units is read whole.
SMALL_BYTES, SMALL_UNITS = 32 << 20, 1000


@dataclass(kw_only=True)
class _Part:
    """What was read of a unit, from its start.

    `consumed` is the part of the unit's `_weight` that held `documents_in` documents and `text_in`
    bytes of text.
    """

    unit: Unit
    keep: int
    documents: int = 0
    text_bytes: int = 0
    errors: int = 0
    first_error: str = ""
    texts: list[str] = field(default_factory=list)
    """The first texts, empty ones included, for the tokenizer."""
    consumed: float = 0.0
    documents_in: int = 0
    text_in: int = 0
    whole: bool = False
    tokens: int = 0
    counting: int = 0
    """Tokens among `tokens` that count."""
    sent: int = 0
    """Tokens that a run with a server sends for those among `tokens`."""
    tokenized_bytes: int = 0
    tokens_known: bool = False
    """True if all texts of the unit were tokenized."""

    def note(self, consumed: float) -> None:
        """Notes that everything counted so far was in this part of the unit's weight."""
        self.consumed, self.documents_in, self.text_in = consumed, self.documents, self.text_bytes

    def add(self, row: Document, columns: Columns) -> None:
        """Counts the documents of a row, and keeps their texts if fewer than `keep` are kept."""
        for document in documents_of(row, columns):
            self._add(document)

    def _add(self, document: Document) -> None:
        self.documents += 1
        if document.error is not None:
            self.errors += 1
            self.first_error = self.first_error or f"{document.doc_id}: {document.error}"
        elif document.text is not None:
            self.text_bytes += len(document.text.encode())
            if len(self.texts) < self.keep:
                self.texts.append(document.text)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Figures of a corpus, and whether the first three of them were counted exactly."""

    documents: int
    documents_exact: bool
    text_bytes: int
    text_exact: bool
    tokens: int
    tokens_exact: bool
    counting: float
    """Share of the tokens that count."""
    sent: float
    """Tokens that a run with a server sends for each token; 0 without a price."""
    sampled: int
    """Number of texts that were tokenized."""
    read: int
    """Number of documents that were read."""
    errors: int
    first_error: str


def count(config: PlanConfig, plan: Plan, sent: SentTokens | None = None) -> Estimate:
    """Counts the documents, text bytes and tokens of a corpus, or estimates them from a part of it.

    sent: counts the tokens that are sent to a server.

    Raises:
        InputError: the tokenizer cannot be read, or every document that was read would be
            quarantined.
    """
    tokenizer = None
    if config.model:
        tokenizer = sent.tokenizer if sent else load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    columns = _columns(config, tokenizer)
    parts = _read_parts(config, plan, columns)
    can_count = tokenizer is not None or columns.kind == "ids"
    sampled = _tokenize(config, tokenizer, parts, sent) if can_count else 0
    n_read, errors = sum(part.documents for part in parts), sum(part.errors for part in parts)
    first_error = next((part.first_error for part in parts if part.first_error), "")
    if n_read and errors == n_read:
        raise InputError(
            f"every one of the {n_read:,} documents of {plan.root} that were read would be quarantined, the first: "
            f"{visible(first_error)}. A run would score nothing. "
            + (
                "Give the right type with --token-files"
                if config.token_files
                else "Name the right columns (--text-column, --id-column, --group-column)"
            )
            + ", or repair the corpus."
        )
    by_format: dict[str, list[Unit]] = defaultdict(list)
    for unit in plan.units:
        by_format[unit.format].append(unit)
    documents, text, per_row = 0.0, 0.0, columns_of(config).documents_per_row
    for name, units in by_format.items():
        of_format = [part for part in parts if part.unit.format == name]
        documents += _documents(units, of_format, per_row)
        text += _total(units, [(part, part.text_bytes, part.text_in) for part in of_format])
    whole = len(parts) == len(plan.units) and all(part.whole for part in parts)
    known = [part for part in parts if part.whole and part.tokens_known]
    tokenized, bytes_seen = sum(part.tokens for part in parts), sum(part.tokenized_bytes for part in parts)
    rest = text - sum(part.text_bytes for part in known)
    per_byte = tokenized / bytes_seen if bytes_seen else 1 / BYTES_PER_TOKEN
    return Estimate(
        documents=round(documents),
        documents_exact=whole or _documents_known(plan, parts),
        text_bytes=round(text),
        text_exact=whole,
        tokens=sum(part.tokens for part in known) + round(max(rest, 0) * per_byte),
        tokens_exact=whole and len(known) == len(parts),
        counting=sum(part.counting for part in parts) / max(1, tokenized),
        sent=sum(part.sent for part in parts) / max(1, tokenized),
        sampled=sampled,
        read=n_read,
        errors=errors,
        first_error=first_error,
    )


def _documents_known(plan: Plan, parts: list[_Part]) -> bool:
    """True if a footer or reading tells the number of documents of every unit."""
    read = {part.unit.unit for part in parts if part.whole}
    return all(unit.rows is not None or unit.unit in read for unit in plan.units)


def _documents(units: Sequence[Unit], parts: list[_Part], per_row: int) -> float:
    if all(unit.rows is not None for unit in units):
        return per_row * sum(unit.rows or 0 for unit in units)
    return _total(units, [(part, part.documents, part.documents_in) for part in parts])


def _total(units: Sequence[Unit], found: list[tuple[_Part, int, int]]) -> float:
    """Returns a figure for all units of a format: counted in whole units, estimated for the rest.

    found: for each part, the figure in all that was read, and in what was consumed.
    """
    left = sum(map(_weight, units)) - sum(_weight(part.unit) for part, _, _ in found if part.whole)
    exact = sum(n for part, n, _ in found if part.whole)
    consumed = sum(part.consumed for part, _, _ in found)
    return exact + left * sum(n for _, _, n in found) / consumed if left > 0 and consumed else exact


def _weight(unit: Unit) -> int:
    """Returns the weight of a unit among the units of its format.

    If the plan knows its rows, it is the bytes of text that the plan knows too, else the part of the
    file from `start` to `stop`.
    """
    return max(unit.text_bytes, 1) if unit.rows is not None else unit.stop - unit.start


def _chosen(plan: Plan) -> tuple[list[Unit], bool]:
    """Returns the units to read, and True if these are all units, each to be read whole.

    Otherwise they are some of each format, spread over the corpus.
    """
    if len(plan.units) <= SMALL_UNITS and sum(unit.text_bytes for unit in plan.units) <= SMALL_BYTES:
        return list(plan.units), True
    chosen: list[Unit] = []
    for name in dict.fromkeys(unit.format for unit in plan.units):
        units = [unit for unit in plan.units if unit.format == name]
        chosen += units[:: max(1, len(units) // SAMPLED_UNITS)][:SAMPLED_UNITS]
    return chosen, False


def _columns(config: PlanConfig, tokenizer: Any) -> Columns:
    """Returns the columns; raises InputError if they depend on a tokenizer that is not given."""
    columns = columns_of(config)
    if config.token_files is None or columns.split_at is not None:
        return columns
    if tokenizer is None:
        raise InputError(
            "the id that ends a document is not known. Give --model, whose EOS token it is, or the id with --split-at."
        )
    return columns._replace(split_at=split_id(config.split_at, tokenizer, str(config.model)))


def _read_parts(config: PlanConfig, plan: Plan, columns: Columns) -> list[_Part]:
    units, small = _chosen(plan)
    root = Folder(plan.root)

    def read(unit: Unit) -> _Part:
        part = _Part(unit=unit, keep=config.sample_documents)
        most = max(READ_BYTES // len(units), EXPANDS * unit.text_bytes if small else 0)
        _read(root, part, columns, most)
        return part

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, units))


def _read(root: Folder, part: _Part, columns: Columns, most: int) -> None:
    """Reads a unit until it ends or `most` bytes of its text are read.

    Where no place in the unit is known yet, it reads up to four times as much to find one.
    """
    unit, weight = part.unit, _weight(part.unit)
    for row, before in format_of(unit).read(root, unit, columns):
        if before is not None:
            part.note(weight * before)
        share = part.consumed / weight
        read = max(part.text_bytes + part.documents * ROW_BYTES, share * unit.text_bytes)
        if read >= most and (part.consumed or read >= 4 * most):
            if not part.consumed:
                part.note(weight * min(1.0, read / max(unit.text_bytes, 1)))
            return
        part.add(row, columns)
    part.whole = True
    part.note(weight)


def _tokenize(config: PlanConfig, tokenizer: Any, parts: list[_Part], sent: SentTokens | None) -> int:
    """Tokenizes all texts if they are few enough, or else some of each part. Returns how many."""
    scored = sum(part.documents - part.errors for part in parts)
    most = config.sample_documents if scored <= config.sample_documents else config.sample_documents // len(parts)
    encoder = Encoder.of(
        columns_of(config).kind,
        tokenizer,
        roles=config.roles,
        date=config.chat_date or datetime.date.today().isoformat(),
        model=str(config.model),
    )
    return sum(_tokenize_part(tokenizer, encoder, part, max(most, 1), sent) for part in parts)


def _tokenize_part(tokenizer: Any, encoder: Encoder, part: _Part, most: int, sent: SentTokens | None) -> int:
    texts = part.texts[:most]
    found = encoder.encode(tokenizer, texts)
    encoded = [one for one in found if isinstance(one, Encoded)]
    part.tokens = sum(len(one.ids) for one in encoded)
    part.counting = sum(len(one.ids) if one.counts is None else int(one.counts.sum()) for one in encoded)
    if sent is not None:
        part.sent = sent.of(encoded)
    part.tokenized_bytes = sum(len(text.encode()) for text in texts)
    part.tokens_known = part.whole and len(texts) == part.documents - part.errors
    refused = [one for one in found if isinstance(one, str)]
    part.errors += len(refused)
    part.first_error = part.first_error or next(iter(refused), "")
    return len(texts)
