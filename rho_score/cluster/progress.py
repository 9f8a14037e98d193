"""Progress of a long run: a live bar on a terminal, a line every few seconds in a log."""

import shutil
import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

LOG_INTERVAL_S = 5.0


class Progress:
    """Counts units, documents and tokens; use as a context manager.

    On a terminal a bar; elsewhere a line when something happened and `LOG_INTERVAL_S` passed, also while a unit takes long.
    """

    def __init__(self, what: str, *, n_units: int) -> None:
        self._what, self._n_units = what, n_units
        self.units = self.documents = self.tokens = 0
        self._started = time.monotonic()
        self._last_line = self._started
        self._stop = threading.Event()
        self._terminal = sys.stderr.isatty()
        size = shutil.get_terminal_size()  # 80 x 24 where a terminal does not tell; tqdm by itself shows nothing then
        self._bar = tqdm(
            total=n_units, desc=what, unit="unit", disable=not self._terminal, ncols=size.columns, nrows=size.lines
        )
        self._heartbeat = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Progress":
        if not self._terminal:
            self._heartbeat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._bar.close()
        if not self._terminal:
            self._line()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def add(self, *, documents: int = 0, tokens: int = 0, units: int = 1) -> None:
        """More units are done. Without documents and tokens (work on what was counted before) only units are told."""
        self.units += units
        self.documents += documents
        self.tokens += tokens
        if self.tokens:
            self._bar.set_postfix_str(f"{self.documents:,} documents, {self._rate():,.0f} tokens/s", refresh=False)
        self._bar.update(units)

    def _rate(self) -> float:
        return self.tokens / max(self.elapsed_s, 1e-9)

    def _beat(self) -> None:
        while not self._stop.wait(LOG_INTERVAL_S):
            self._line()

    def _line(self) -> None:
        left = (self._n_units - self.units) * self.elapsed_s / self.units if self.units else None
        eta = "done" if self.units == self._n_units else "unknown" if left is None else _clock(left)
        told = f"{self.documents:,} documents, {self.tokens:,} tokens, {self._rate():,.0f} tokens/s, "
        told = told if self.documents or self.tokens else ""
        print(
            f"{self._what}: {self.units}/{self._n_units} units, {told}elapsed {_clock(self.elapsed_s)}, ETA {eta}",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
