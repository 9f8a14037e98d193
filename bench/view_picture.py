"""The picture of the page of `rho-score view` in the guide, of what `make demo` made: `python -m bench.view_picture`."""

import asyncio
import io
import tempfile
from pathlib import Path

from PIL import Image

from bench.browser import chromium, tab
from rho_score.config import ViewConfig
from rho_score.viewing.job import open_answers
from rho_score.viewing.server import application, serve

ROOT = Path(__file__).parents[1]
SELECTION = ROOT / "out/demo/selection"
PICTURE = ROOT / "docs/images/view.png"
DOCUMENT = "topic/augassign"
COLOURS = 96
"""Of the picture: few, so that the file is small."""


async def _picture(address: str, folder: Path) -> bytes:
    answers = open_answers(ViewConfig(store=str(SELECTION), cache=str(folder / "cache")))
    answers.stores[0].index.wait()
    runner, port = await serve(application(answers, "page"), 0)
    async with tab(address, f"http://127.0.0.1:{port}/page/") as page:
        await page.until("document.body?.dataset.ready === 'yes' && document.getElementById('progress').hidden")
        await page.value(
            "document.getElementById('place').firstChild.textContent = 'selection'"
        )  # no folder of this machine
        await page.value(
            f"[...document.querySelectorAll('#documents button')].find(b => b.title === '{DOCUMENT}').click()"
        )
        await page.until("document.querySelector('.panel .doc span[class^=h]') !== null")
        await asyncio.sleep(0.5)  # the list scrolls to the document
        await page.picture(folder / "page.png")
    await runner.cleanup()
    answers.close()
    return (folder / "page.png").read_bytes()


def main() -> None:
    """Writes the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with chromium(folder / "chromium") as address:
            content = asyncio.run(_picture(address, folder))
    picture = Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS)
    picture.save(PICTURE, optimize=True)
    print(f"wrote {PICTURE}, {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
