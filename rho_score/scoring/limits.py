"""Refuses wrong numbers and places before anything else is looked at."""

from typing import Any

from rho_score.config import ScoreConfig
from rho_score.errors import InputError
from rho_score.scoring.prices import check_prices
from rho_score.scoring.server_settings import check_server_options


def check_limits(config: ScoreConfig) -> None:
    """Raises InputError for a value that its option does not allow."""
    check_server_options(config)
    _check_money(config)
    seconds = config.unit_timeout
    if seconds is not None and not 1 <= seconds < 1e8:
        raise InputError(f"--unit-timeout must be at least 1 second and below 100,000,000; got {seconds:g}.")
    gpus = config.gpus_per_worker
    if gpus is not None and not (0 <= gpus < 1 or (1 <= gpus < 1e4 and gpus == int(gpus))):
        raise InputError(f"--gpus-per-worker must be a share of a GPU below 1 or a whole number of GPUs, got {gpus:g}.")
    for name in ("cpus_per_worker", "batch_tokens"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")


def _check_money(config: ScoreConfig) -> None:
    """Raises InputError for a price or a limit that cannot be."""
    check_prices(config)
    limit = config.spend_at_most
    if limit is None:
        return
    if config.price_per_hour is None and config.price_per_million_tokens is None:
        raise InputError(
            "--spend-at-most needs a price: give --price-per-hour, that of a worker-hour"
            + (", or --price-per-million-tokens." if config.server else ".")
        )
    if not 0 < limit < 1e12:
        raise InputError(f"--spend-at-most must be more than 0, got {limit:g}.")
    if config.verify is not None:
        raise InputError("--verify writes nothing, so it counts nothing: leave --spend-at-most out.")


def worker_range(text: str) -> tuple[int, int]:
    """Returns the (smallest, largest) number in `--workers`. Raises InputError for another form."""
    low, _, high = text.partition(":")
    try:
        found = int(low), int(high or low)
    except ValueError:
        found = (0, 0)
    if not 1 <= found[0] <= found[1]:
        raise InputError(f"--workers must be N or MIN:MAX with 1 <= MIN <= MAX, got {text!r}.")
    return found


def check_vocabulary(model: str, tokenizer: Any, vocabulary: int, prefix: int | None, *, special: bool) -> None:
    """Raises InputError if the tokenizer has ids beyond the model's vocabulary.

    special: True if documents may have special tokens.

    No text becomes one: a text that spells its name is tokenized as plain text.
    """
    never = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special and not special} - {prefix}
    used = max(set(tokenizer.get_vocab().values()) - never, default=0)
    if used >= vocabulary:
        raise InputError(
            f"the tokenizer of {model} has ids up to {used}, but its model has a vocabulary of {vocabulary}: "
            "they do not belong together. Take the model's own tokenizer."
        )
