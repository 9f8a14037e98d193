"""Small real models, a small corpus in every format, and one Ray cluster for all tests."""

import gzip
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.config import conf, set_conf_env
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rho_score.cluster.ray_cluster import configure_own_cluster
from rho_score.files.folder import Folder
from tests.faults import FaultyProxy
from tests.forkserver.server import START_WORKER, ForkServer

settings.register_profile("rho-score", deadline=None)  # the machine may be busy
settings.load_profile("rho-score")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asks a hub is wrong
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

WORDS = [
    "the",
    "model",
    "learns",
    "a",
    "token",
    "of",
    "text",
    "from",
    "its",
    "loss",
    "and",
    "the",
    "reference",
    "tells",
    "which",
    "tokens",
    "are",
    "worth",
    "it",
    "quantile",
    "threshold",
    "histogram",
    "shard",
    "document",
    "unit",
    "window",
    "context",
    "overlap",
    "naïve",
    "café",
    "東京",
    "Привет",
    "🙂",
]


def some_text(n_words: int, seed: int) -> str:
    """Reproducible text of `n_words` words."""
    return " ".join(random.Random(seed).choices(WORDS, k=n_words))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 entries with BOS, EOS and a chat token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([some_text(400, seed) for seed in range(5)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def save_model(folder: Path, seed: int, tokenizer: PreTrainedTokenizerFast, *, width: int = 32) -> None:
    """A tiny random Llama and its tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=400, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.6, bos_token_id=0, eos_token_id=1,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of all small models."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Callable[[int], Path]:
    """Directories of tiny random Llama models, one a seed."""
    made: dict[int, Path] = {}

    def make(seed: int) -> Path:
        if seed not in made:
            made[seed] = tmp_path_factory.mktemp(f"model{seed}")
            save_model(made[seed], seed, tokenizer)
        return made[seed]

    return make


def damage_row_group(path: Path, group: int) -> None:
    """Overwrite some bytes of the first column's data in a row group of a Parquet file."""
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    content = bytearray(path.read_bytes())
    end = column.data_page_offset + column.total_compressed_size
    content[end - 40 : end - 20] = b"\x00" * 20
    path.write_bytes(content)


def write_corpus(folder: Path) -> Path:
    """Two Parquet shards, one JSONL, one JSONL.gz, one JSONL.zst; 62 documents, 5 of them not to be scored."""
    folder.mkdir(parents=True)
    rows = [{"id": f"d{i}", "source": "abc"[i % 3], "text": some_text(1 + (i * 37) % 150, i)} for i in range(57)]
    parquet = [
        *rows[:24],
        {"id": "null", "source": "a", "text": None},
        {"id": "empty", "source": "b", "text": ""},
    ]
    for name, part in (("a.parquet", parquet[:15]), ("sub/b.parquet", parquet[15:])):
        (folder / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part), folder / name, row_group_size=4)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows[24:]]
    (folder / "c.jsonl").write_text("\n".join([*lines[:15], "", '{"id": "x", "text": "cut']) + "\n")
    with gzip.open(folder / "d.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([*lines[15:25], '{"id": "number", "source": "a", "text": 7}', "[1]"]) + "\n")
    with pa.output_stream(folder / "e.jsonl.zst", compression="zstd") as stream:
        stream.write(("\n".join([*lines[25:], '{"id": "none", "source": "c"}']) + "\n").encode())
    (folder / "NOTES.txt").write_text("not a shard")
    return folder


N_DOCUMENTS, N_QUARANTINED = 63, 5


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `write_corpus`."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    """A gateway with a bucket `rho`, the proxy before it, and the environment that points s3:// at the proxy."""
    folder = tmp_path_factory.mktemp("juicefs")
    juicefs = shutil.which("juicefs", path=str(Path(sys.executable).parent)) or "juicefs"
    meta = f"sqlite3://{folder}/meta.db"
    subprocess.run(
        [juicefs, "format", meta, "vol", "--storage", "file", "--bucket", f"{folder}/blocks/"],
        check=True,
        capture_output=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secrets = {"MINIO_ROOT_USER": "rho-score", "MINIO_ROOT_PASSWORD": "only-for-tests"}
    log = (folder / "gateway.log").open("wb")
    gateway = subprocess.Popen(
        [juicefs, "gateway", "--multi-buckets", "--no-usage-report", meta, f"127.0.0.1:{port}"],
        env=os.environ | secrets, stdout=log, stderr=log,
    )  # fmt: skip
    environment = pytest.MonkeyPatch()
    environment.setenv("AWS_ACCESS_KEY_ID", secrets["MINIO_ROOT_USER"])
    environment.setenv("AWS_SECRET_ACCESS_KEY", secrets["MINIO_ROOT_PASSWORD"])
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    environment.setenv("FSSPEC_S3", json.dumps({"config_kwargs": {"connect_timeout": 3, "read_timeout": 3}}))
    environment.setenv("RHO_SCORE_STORAGE_PATIENCE_S", "15")
    environment.setattr("rho_score.files.retries.PATIENCE_S", 15)
    set_conf_env(conf)
    proxy = FaultyProxy(port).__enter__()
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    try:
        end = time.monotonic() + 60
        while True:
            try:
                Folder("s3://rho").fs.mkdir("rho")
                break
            except OSError:
                assert time.monotonic() < end, (folder / "gateway.log").read_text()
                time.sleep(0.5)
        yield proxy
    finally:
        environment.undo()
        proxy.__exit__()
        gateway.terminate()
        gateway.wait(20)
        log.close()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Workers of the tests' clusters are forked by it; `setup_worker_path` of a node says so."""
    with ForkServer() as server:
        yield server


@pytest.fixture(scope="session")
def ray_cluster(s3: FaultyProxy, fork_server: ForkServer) -> Iterator[str]:
    """A local cluster of 4 logical CPUs with a dashboard; the address of its job server. Its workers know the S3 server.

    Its dashboard and agent listen at any free port: Ray's default ones may be held by those of a cluster that was killed.
    """
    import ray
    from ray.cluster_utils import Cluster

    configure_own_cluster(4)
    head = {"num_cpus": 4, "include_dashboard": True, "dashboard_port": None, "dashboard_agent_listen_port": 0,
            "setup_worker_path": START_WORKER}  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=True)
    yield f"http://{cluster.webui_url}"
    ray.shutdown()
    cluster.shutdown()
