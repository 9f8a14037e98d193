"""Where a corpus is: kind, how it is made, answer."""

from pathlib import Path

from tests.inputs.kinds import Doc, Kind, Make, refused

LINE = '{"text": "one"}\n'
NAMES = ("a b.jsonl", "ü東.jsonl", "c#d.jsonl", "e%20f.jsonl", "g\nh.jsonl", "i*[1]?.jsonl", "UPPER.JSONL")


def files(*names: str, given: str = "") -> Make:
    """Shards of one document each; `given`: INPUT, relative to the folder, where it is not the folder."""

    def make(folder: Path) -> str | None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(LINE)
        return f"{folder}/{given}" if given else None

    return make


def link(name: str, target: str) -> Make:
    """A shard beside a link."""

    def make(folder: Path) -> None:
        files("a.jsonl")(folder)
        (folder / name).symlink_to(folder / target if target == name else target)

    return make


def _loop(folder: Path) -> None:
    files("a.jsonl", "sub/b.jsonl")(folder)
    (folder / "sub" / "up").symlink_to(folder)


PATHS = [
    Kind("nothing there", files(given="none"), refused("there is nothing at", "none", "Check the path")),
    Kind("a pattern that matches nothing", files("a.jsonl", given="*.parquet"), refused("no shards in", "*.parquet", "Check the path")),
    Kind("a folder without a shard", files("a.txt", "b.csv"), refused("no shards in", "2 files there", ".parquet, .jsonl", "convert")),
    Kind("a file of another kind", files("a.json", given="a.json"), refused("no shards in", "a.json", ".jsonl.gz", "convert")),
    Kind("other files beside shards", files("a.jsonl", "b.txt", "_SUCCESS"), [Doc("one")], "the shards are scored; the others are left out and named"),
    Kind("shards in folders", files("a.jsonl", "b/c/d.jsonl"), [Doc("one"), Doc("one")]),
    Kind("names with spaces, `#`, `%`, `*`, newlines, in any script or case", files(*NAMES), [Doc("one")] * len(NAMES)),
    Kind("a file given by a name with `*`, `?` or `[`", files("i*[1]?.jsonl", given="i*[1]?.jsonl"), [Doc("one", id="i*[1]?.jsonl@0")]),
    Kind("a link to nothing", link("b.jsonl", "/no/such/file"), refused("b.jsonl", "a link to a file that is not there", "Mend the link")),
    Kind("a link to itself", link("b.jsonl", "b.jsonl"), refused("b.jsonl", "a link to a file that is not there")),
    Kind("a link to a folder above it", _loop, [Doc("one"), Doc("one")], "links to folders are not followed; each is named as left out"),
]  # fmt: skip
