"""The list of commands. Each writes below out/NAME, and reads from inputs/NAME and from what commands before it wrote."""

import re
from dataclasses import dataclass

COLUMNS = "--id-column id --group-column source"
CPU = "--gpus-per-worker 0 --cpus-per-worker 1 --unit-bytes 4000"
PLAIN = f"{CPU} --dtype float32 --no-compile"
TINY = f"{PLAIN} --context 32 --overlap 8 --batch-tokens 128"
CORPUS = "score IN/every-format OUT"
REF, BASE = "--ref out/ref", "--base out/base"
SELECT = f"select {REF} {BASE} OUT"
UNION = f"select --ref math=out/ref --ref code=out/code {BASE} OUT --combine union"
WIDE = "select --ref out/wide-ref --base out/wide-base OUT"
DOCUMENTS = "--level document"

SCORES = {
    "ref": f"{CORPUS} --model IN/model-ref {COLUMNS} {TINY} --signals entropy rank",
    "base": f"{CORPUS} --model IN/model-base {COLUMNS} {TINY} --workers 2",
    "code": f"{CORPUS} --model IN/model-code {COLUMNS} {TINY} --unit-bytes 5000",
    "pieces": f"{CORPUS} --model IN/model-pieces {COLUMNS} {TINY}",
    "wide-ref": f"{CORPUS} --model IN/model-ref {COLUMNS} {TINY} --precision float32",
    "wide-base": f"{CORPUS} --model IN/model-base {COLUMNS} {TINY} --precision float32 --unit-bytes 3000",
    "no-prefix": f"{CORPUS} --model IN/model-ref {PLAIN} --prefix none",
    "bfloat16": f"{CORPUS} --model IN/model-base {CPU} --dtype bfloat16 --no-compile --context 16 --overlap 0 --prefix 5",
    "compiled": f"{CORPUS} --model IN/model-ref {COLUMNS} {CPU} --dtype float32 --batch-tokens 256",
    "long": f"{CORPUS} --model IN/model-ref {COLUMNS} {PLAIN} --context 64 --batch-tokens 16 --signals rank",
    "nested": f"score IN/nested OUT --model IN/model-ref {TINY} --text-column body.text --id-column lang,meta.id --group-column lang",
    "meta": f"score IN/nested OUT --model IN/model-base {TINY} --text-column body.text --group-column meta.seen",
    "parquet": f"score IN/parquet OUT --model IN/model-ref {COLUMNS} {TINY} --unit-bytes 1000",
    "kinds": f"score IN/kinds OUT --model IN/model-ref {TINY} --context 64",
    "quarantined": f"{CORPUS} --model IN/model-ref {COLUMNS} {TINY}",
    "quarantined-again": f"score IN/every-format out/quarantined --model IN/model-ref {COLUMNS} {TINY} --only-quarantined",
}  # all end with 3: they have quarantined documents

SELECTIONS = {
    "ratio": f"{SELECT} --ratio 0.6",
    "nothing": f"{SELECT} --ratio 0",
    "everything": f"{SELECT} --ratio 1",
    "tokens": f"{SELECT} --tokens 1234",
    "threshold": f"{SELECT} --threshold 0.125",
    "loss": f"select {REF} OUT --ratio 0.3",
    "loss-high": f"select {REF} OUT --ratio 0.3 --keep high",
    "excess-low": f"{SELECT} --threshold -0.5 --keep low",
    "band": f"{SELECT} --ratio 0.4 --drop-top 0.05",
    "per-group": f"{SELECT} --ratio 0.6 --per-group",
    "per-group-threshold": f"{SELECT} --threshold 0.1 --per-group",
    "quota": f"{SELECT} --quota a=0.8 --quota b=300 --quota *=0.25",
    "by-document": f"{SELECT} --ratio 0.5 --scope document",
    "by-batch": f"{SELECT} --ratio 0.5 --scope batch --batch-tokens 100 --drop-top 0.1",
    "gumbel": f"{SELECT} --ratio 0.5 --sample gumbel --temperature 0.5 --seed 3",
    "random": f"{SELECT} --ratio 0.5 --sample random --per-group",
    "runs": f"{SELECT} --ratio 0.6 --min-run 3",
    "lowest": f"select --ref a=out/ref --ref b=out/code {BASE} OUT --ratio 0.5",
    "mean": f"select --ref a=out/ref --ref b=out/code {BASE} OUT --combine mean --ratio 0.5",
    "union": f"{UNION} --ratio 0.3 --share code=0.5 --expert-masks",
    "union-budget": f"{UNION} --tokens 700 --expert-masks --min-run 2",
    "union-groups": f"{UNION} --ratio 0.3 --per-group",
    "union-sample": f"{UNION} --ratio 0.3 --sample gumbel --expert-masks",
    "bytes": f"select --ref out/pieces {BASE} OUT --align bytes --ratio 0.6",
    "bytes-from-pieces": "select --ref out/ref --base out/pieces OUT --align bytes --threshold 0.2",
    "bytes-union": f"select --ref p=out/pieces --ref c=out/code {BASE} OUT --align bytes --combine union --ratio 0.2",
    "documents": f"{SELECT} {DOCUMENTS} --ratio 0.5",
    "documents-budget": f"select {REF} OUT {DOCUMENTS} --tokens 3000",
    "documents-threshold": f"{SELECT} {DOCUMENTS} --threshold 0.05",
    "documents-band": f"{SELECT} {DOCUMENTS} --tokens 2000 --drop-top 0.1",
    "documents-bytes": f"{SELECT} {DOCUMENTS} --document-score per-byte --ratio 0.4",
    "documents-share": f"{SELECT} {DOCUMENTS} --document-score kept-share --token-ratio 0.3 --ratio 0.4",
    "documents-groups": f"{SELECT} {DOCUMENTS} --ratio 0.4 --per-group",
    "documents-quota": f"{SELECT} {DOCUMENTS} --quota a=0.5 --quota c=900 --quota *=0",
    "documents-random": f"{SELECT} {DOCUMENTS} --ratio 0.4 --sample random --seed 9",
    "documents-pieces": f"select --ref out/pieces {BASE} OUT {DOCUMENTS} --align bytes --document-score per-byte --ratio 0.5",
    "wide": f"{WIDE} --ratio 0.6",
    "wide-tokens": f"{WIDE} --tokens 999",
    "wide-quota": f"{WIDE} --quota a=0.3 --quota *=200",
    "wide-band": f"{WIDE} --ratio 0.3 --drop-top 0.2",
    "wide-documents": f"{WIDE} {DOCUMENTS} --tokens 2500",
    "wide-share": f"{WIDE} {DOCUMENTS} --document-score kept-share --token-ratio 0.5 --ratio 0.5",
    "wide-gumbel": f"{WIDE} --ratio 0.4 --sample gumbel",
    "mixed": f"select --ref out/wide-ref {BASE} OUT --ratio 0.5",
    "no-prefix-loss": "select --ref out/no-prefix OUT --ratio 0.5 --keep high",
    "bfloat16-loss": "select --ref out/bfloat16 OUT --tokens 800 --workers 1",
    "nested-loss": "select --ref out/nested OUT --ratio 0.5 --per-group",
    "meta-loss": "select --ref out/meta OUT --quota true=0.5 --quota *=0.1",
    "parquet-documents": f"select --ref out/parquet OUT {DOCUMENTS} --ratio 0.6",
    "parquet-budget": f"select --ref out/parquet OUT {DOCUMENTS} --tokens 900 --keep high",
    "kinds-loss": "select --ref out/kinds OUT --ratio 0.5",
    "unfinished-ratio": f"select --ref out/unfinished {BASE} OUT --ratio 0.5 --allow-unfinished",
    "dry": f"{SELECT} --ratio 0.6 --dry-run",
    "again": "select --ref out/ref --base out/base out/ratio --ratio 0.6",
}
DYNAMICS = {
    "dynamics": "dynamics OUT --scores out/base out/code out/ref",
    "dynamics-steps": "dynamics OUT --scores out/base out/code out/ref --steps 1 2 10 --keep H-L H-H --rise 0.5 --fall 0.1"
    " --plot OUT/shares.svg",
    "dynamics-wide": "dynamics OUT --scores out/wide-base out/wide-ref --keep L-H L-L",
}
IN_RAY = {
    "ray-ratio": f"{SELECT} --ratio 0.6",
    "ray-union": f"{UNION} --ratio 0.3 --share code=0.5 --expert-masks --per-group",
    "ray-documents": f"{WIDE} {DOCUMENTS} --tokens 2500",
    "ray-dynamics": "dynamics OUT --scores out/base out/code out/ref",
}
EXPORTS = {
    "labels": "export out/ratio OUT --format labels",
    "labels-blocks": "export out/ratio OUT --format labels --block-size 64",
    "labels-easy": "export out/per-group OUT --format labels --order easy-first --units-per-part 3",
    "labels-hard": "export out/documents OUT --format labels --order hard-first --block-size 50 --no-prefix",
    "labels-bare": "export out/union OUT --format labels --no-prefix --train-eos --eos-id 7 --units-per-part 1",
    "labels-dynamics": "export out/dynamics OUT --format labels",
    "labels-bytes": "export out/bytes OUT --format labels --units-per-part 2 --workers 1",
    "labels-no-prefix": "export out/no-prefix-loss OUT --format labels",
    "bin": "export out/ratio OUT --format bin",
    "bin-easy": "export out/ratio OUT --format bin --order easy-first --train-eos --units-per-part 4",
    "megatron": "export out/ratio OUT --format megatron --units-per-part 5",
    "megatron-hard": "export out/documents-budget OUT --format megatron --order hard-first --eos-id 9",
    "originals": "export out/parquet-documents OUT --format parquet",
    "originals-elsewhere": "export out/parquet-documents OUT --format parquet --input IN/parquet --scores out/parquet",
    "originals-parts": "export out/parquet-budget OUT --format parquet --units-per-part 2",
    "lines-from-parquet": "export out/parquet-budget OUT --format jsonl",
    "lines": "export out/documents OUT --format jsonl",
    "lines-gzip": "export out/documents-groups OUT --format jsonl --compression gzip",
    "lines-zstd": "export out/documents-bytes OUT --format jsonl --compression zstd --units-per-part 3",
}
LOOKS = {
    "curve": "curve out/ratio --csv OUT/curve.csv --plot OUT/curve.svg",
    "curve-given": "curve out/per-group --ratio 0.1 0.9 --tokens 500 --threshold 0 0.5 --plot OUT/curve.png",
    "curve-union": "curve out/union --expert code --plot OUT/curve.pdf --csv OUT/curve.csv",
    "curve-documents": "curve out/documents --csv OUT/curve.csv",
    "curve-wide": "curve out/wide --csv OUT/curve.csv",
    "curve-gumbel": "curve out/gumbel --csv OUT/curve.csv",
    "report-scores": "report out/ref OUT/page.html",
    "report-wide": "report out/wide-base OUT/page.html --documents 3",
    "report-ratio": "report out/ratio OUT/page.html",
    "report-sample": "report out/per-group OUT/page.html --sample-tokens 1000 --ref out/ref --base out/base",
    "report-union": "report out/union OUT/page.html",
    "report-documents": "report out/documents OUT/page.html",
    "report-bytes": "report out/bytes OUT/page.html",
    "report-random": "report out/random OUT/page.html",
    "report-dynamics": "report out/dynamics OUT/page.html",
    "report-no-groups": "report out/no-prefix-loss OUT/page.html",
    "plan": "plan IN/every-format --model IN/model-ref --tokens-per-second 100 --price-per-hour 2",
}
REFUSED = {
    "wide-groups": f"{WIDE} --tokens 999 --per-group",
    "no-amount": f"{SELECT}",
    "two-amounts": f"{SELECT} --ratio 0.5 --tokens 3",
    "other-tokenizer": f"select --ref out/pieces {BASE} OUT --ratio 0.5",
    "not-finished": f"select --ref out/unfinished {BASE} OUT --ratio 0.5",
    "other-rule": "select --ref out/ref --base out/base out/ratio --ratio 0.7",
    "mixed-originals": "export out/documents OUT --format parquet",
    "no-documents": "export out/ratio OUT --format parquet",
    "no-store": "report IN/every-format OUT/page.html",
}
DEMO_CPUS = "--cpus-per-worker 2 --context 1024 --overlap 128 --unit-bytes 40000"
DEMO_SCORES = {
    f"demo-{name}": f"score IN/demo-part OUT --model IN/demo-{name} {COLUMNS} {DEMO_CPUS}" for name in ("base", "ref")
}
DEMO = {
    "demo-selection": "select --ref out/demo-ref --base out/demo-base OUT --ratio 0.3",
    "demo-documents": "select --ref out/demo-ref --base out/demo-base OUT --level document --tokens 8000",
    "demo-curve": "curve out/demo-selection --ratio 0.3 0.6 0.9 --threshold 0 --plot OUT/curve.svg --csv OUT/curve.csv",
    "demo-report": "report out/demo-selection OUT/page.html",
    "demo-labels": "export out/demo-selection OUT --format labels --block-size 1024",
    "demo-bin": "export out/demo-selection OUT --format bin",
    "demo-originals": "export out/demo-documents OUT --format jsonl",
}


@dataclass(frozen=True)
class Command:
    """Arguments of rho-score, the exit code that they are to end with, and whether they run in a Ray cluster."""

    name: str
    arguments: tuple[str, ...]
    code: int = 0
    in_ray: bool = False

    @property
    def reads(self) -> set[str]:
        """Names of the outputs that it reads, or writes into beside its own."""
        return set(re.findall(r"(?<![\w/])out/([\w-]+)", " ".join(self.arguments))) - {self.name}

    @property
    def inputs(self) -> set[str]:
        """Names of the inputs that it reads."""
        return set(re.findall(r"\.\./inputs/([\w-]+)", " ".join(self.arguments)))


def _commands(lines: dict[str, str], code: int = 0, *, in_ray: bool = False) -> list[Command]:
    return [
        Command(name, tuple(line.replace("IN/", "../inputs/").replace("OUT", f"out/{name}").split()), code, in_ray)
        for name, line in lines.items()
    ]


UNFINISHED = Command("unfinished", ("unfinished", "out/ref", "out/unfinished"))
COMMANDS = [
    *_commands(SCORES, 3, in_ray=True),
    *_commands(IN_RAY, in_ray=True),
    UNFINISHED,
    *_commands({**SELECTIONS, **DYNAMICS, **LOOKS}),
    *_commands(REFUSED, 2),
    *_commands(EXPORTS, in_ray=True),
    *_commands(DEMO_SCORES, 3, in_ray=True),
    *_commands(DEMO, in_ray=True),
]
