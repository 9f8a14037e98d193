"""The corpora of the proof: clean target text, the same with noise inside, and the same mixed with other text.

texts/reference.jsonl     clean documents of the target, for the reference models
texts/test.jsonl          held-out documents of the target: what every figure is about
texts/validation.jsonl    more of them: what learning rates are chosen by
texts/others.jsonl        held-out documents of the other domains: the price of selection
texts/corpora/NAME.jsonl  the corpus of a condition
texts/noise/NAME.parquet  where the noise of a condition lies; nothing but the oracle reads it
texts/counts.json         the tokens of each
model/                    the configuration and the tokenizer of the models
"""

import json
import random
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from demo.model import base_model
from proof.oracle import Oracle
from proof.sizes import Condition, Size
from proof.texts import LANGUAGES, Document, other_documents, target_files

SPAN = (6, 31)  # tokens of a span of noise
NOISE_SCHEMA = pa.schema([("id", pa.string()), ("begin", pa.list_(pa.int32())), ("end", pa.list_(pa.int32()))])
END = "<|end|>"


def train_tokenizer(texts: Iterable[str], n_words: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `n_words` words."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=n_words, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END)


class Corpora:
    """Builds the texts of a proof under a folder."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self._counts: dict[str, int] = {}

    def build(self, conditions: Sequence[Condition]) -> None:
        """Writes all texts, unless they are there."""
        done = self.folder / "texts/counts.json"
        if done.exists():
            return
        shutil.rmtree(self.folder / "texts", ignore_errors=True)
        size, counts = self.size, {}
        files, others = iter(target_files()), iter(other_documents())
        held = {
            name: self._until(([d] for d in others) if name == "others" else files, n_tokens)
            for name, n_tokens in (
                ("test", size.held_out),
                ("validation", size.held_out),
                ("others", size.held_out),
                ("reference", size.reference),
            )
        }
        for name, documents in held.items():
            counts[name] = self._write(f"texts/{name}.jsonl", documents)
        most = max(condition.target for condition in conditions)
        least = 0 if any(condition.noise for condition in conditions) else min(c.target for c in conditions)
        target = self._until(files, size.corpus * most // 100)
        rest = self._until(([d] for d in others), size.corpus * (100 - least) // 100)
        for condition in conditions:
            documents = self._mixed(condition, target, rest)
            if condition.noise:
                documents = self._noisy(condition, documents, rest)
            counts[condition.name] = self._write(f"texts/corpora/{condition.name}.jsonl", documents)
        done.write_text(json.dumps(counts, indent=1) + "\n")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the models, which is trained on text of all kinds."""
        place = self.folder / "model"
        if not (place / "config.json").exists():
            self._make_model("model", self.size.words, self.size.width, self.size.layers)
        loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(place)
        return loaded

    def weaker(self) -> Path:
        """A configuration with a quarter of the parameters and the same tokenizer."""
        _ = self.tokenizer
        return self._make_model("model-weak", self.size.words, self.size.weak_width, self.size.weak_layers)

    def other_words(self) -> Path:
        """A configuration of the same width with another tokenizer."""
        return self._make_model("model-other-words", self.size.words // 2, self.size.width, self.size.layers)

    def sample(self, condition: Condition) -> Path:
        """A held-out sample of a condition's corpus: clean documents with noise put in, or the mixture."""
        path = self.folder / f"texts/samples/{condition.name}.jsonl"
        if path.exists():
            return path
        held = {name: self._read(f"texts/{name}.jsonl") for name in ("validation", "others")}
        if condition.noise:
            noise = Noise(condition, [d.text for d in held["others"] if d.group == LANGUAGES], self)
            documents = [d._replace(text=noise.put_into(d.text)[0]) for d in held["validation"]]
        else:
            n_target = self.size.held_out * condition.target // 100
            documents = self._until(([d] for d in held["validation"]), n_target)
            documents += self._until(([d] for d in held["others"]), self.size.held_out - n_target)
        self._write(f"texts/samples/{condition.name}.jsonl", documents)
        return path

    def oracle(self, condition: Condition) -> Oracle:
        """What is noise in a condition's corpus."""
        texts = {document.id: document.text for document in self._read(f"texts/corpora/{condition.name}.jsonl")}
        return Oracle(texts, self.folder / f"texts/noise/{condition.name}.parquet", self.tokenizer)

    def _read(self, name: str) -> list[Document]:
        rows = [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").rstrip("\n").split("\n")]
        return [Document(row["id"], row["source"], row["text"]) for row in rows]

    def _make_model(self, name: str, n_words: int, width: int, layers: int) -> Path:
        place = self.folder / name
        if self.size.pretrained:
            shutil.copytree(base_model(), place, dirs_exist_ok=True)
        elif not (place / "config.json").exists():
            texts = [d.text for file in target_files()[-200:] for d in file] + [
                d.text for d in other_documents()[-400:]
            ]
            tokenizer = train_tokenizer(texts, n_words)
            tokenizer.save_pretrained(place)
            LlamaConfig(
                vocab_size=n_words,
                hidden_size=width,
                intermediate_size=8 * width // 3 // 8 * 8,
                num_hidden_layers=layers,
                num_attention_heads=width // 32,
                max_position_embeddings=self.size.block,
                bos_token_id=0,
                eos_token_id=0,
                tie_word_embeddings=True,
                architectures=["LlamaForCausalLM"],
            ).save_pretrained(place)
        return place

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._counts]
        encoded = self.tokenizer.backend_tokenizer.encode_batch_fast(new, add_special_tokens=False)
        self._counts.update(zip(new, map(len, encoded), strict=True))
        return [self._counts[text] for text in texts]

    def _until(self, source: Iterable[list[Document]], n_tokens: int) -> list[Document]:
        """Documents, file by file, until there are so many tokens."""
        found: list[Document] = []
        total = 0
        for documents in source:
            found += documents
            total += sum(self.count([document.text for document in documents]))
            if total >= n_tokens:
                return found
        raise AssertionError(f"only {total:,} of {n_tokens:,} tokens of text are there")

    def _mixed(self, condition: Condition, target: list[Document], rest: list[Document]) -> list[Document]:
        """Documents of both kinds, shuffled, as many tokens as a corpus has."""
        n_target = self.size.corpus * condition.target // 100
        documents = self._until(([d] for d in target), n_target) if n_target else []
        if n_target < self.size.corpus:
            documents = documents + self._until(([d] for d in rest), self.size.corpus - n_target)
        random.Random(condition.name).shuffle(documents)
        return documents

    def _noisy(self, condition: Condition, documents: list[Document], rest: list[Document]) -> list[Document]:
        """The documents with spans of their tokens replaced; writes where these lie."""
        noise = Noise(condition, [d.text for d in rest if d.group == LANGUAGES], self)
        rows: dict[str, list[object]] = {name: [] for name in NOISE_SCHEMA.names}
        found = []
        for document in documents:
            text, spans = noise.put_into(document.text)
            found.append(document._replace(text=text))
            rows["id"].append(document.id)
            rows["begin"].append([begin for begin, _ in spans])
            rows["end"].append([end for _, end in spans])
        path = self.folder / f"texts/noise/{condition.name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows, schema=NOISE_SCHEMA), path)
        return found

    def _write(self, name: str, documents: list[Document]) -> int:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"id": d.id, "source": d.group, "text": d.text}, ensure_ascii=False) for d in documents]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return sum(self.count([document.text for document in documents]))


class Noise:
    """Replaces spans of words by foreign text, by their own words in another order, or by random tokens."""

    def __init__(self, condition: Condition, foreign: list[str], corpora: Corpora) -> None:
        self.share, self.corpora = condition.noise / 100, corpora
        self.random = random.Random(f"noise {condition.name}")
        self.foreign = [re.findall(r"\s*\S+", text) for text in foreign]
        self.words = sorted(
            word for word in corpora.tokenizer.get_vocab() if re.fullmatch(r"Ġ?[!-~]{2,}", word) and word != END
        )

    def put_into(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """The text with noise, and the characters of it that are noise, as begins and ends."""
        words = re.findall(r"\s*\S+|\s+$", text)
        sizes = self.corpora.count(words) if words else []
        lowest, highest = SPAN
        clean_mean = (lowest + highest) / 2 * (1 - self.share) / self.share
        parts: list[str] = []
        spans: list[tuple[int, int]] = []
        length, place, noisy = 0, 0, self.random.random() < self.share
        while place < len(words):
            wanted = (
                self.random.randint(lowest, highest) if noisy else round(self.random.uniform(0.5, 1.5) * clean_mean)
            )
            end, n_tokens = place, 0
            while end < len(words) and n_tokens < wanted:
                n_tokens += sizes[end]
                end += 1
            part = "".join(words[place:end])
            if noisy and part.strip():
                part = self._noise(words[place:end], n_tokens)
                spans.append((length, length + len(part)))
            parts.append(part)
            length, place, noisy = length + len(part), end, not noisy
        return "".join(parts), spans

    def _noise(self, words: list[str], n_tokens: int) -> str:
        kind = self.random.randrange(3)
        if kind == 0:
            source = self.random.choice(self.foreign)
            begin = self.random.randrange(len(source))
            return self._first(source[begin:] + source[:begin], n_tokens)
        if kind == 1 and len(words) > 2:
            return "".join(self.random.sample(words, len(words)))
        return self._first([word.replace("Ġ", " ") for word in self.random.choices(self.words, k=n_tokens)], n_tokens)

    def _first(self, words: list[str], n_tokens: int) -> str:
        """The first words, until there are so many tokens."""
        taken, total = [], 0
        for word, size in zip(words, self.corpora.count(words[:n_tokens]), strict=False):
            taken.append(word)
            total += size
            if total >= n_tokens:
                break
        return "".join(taken)
