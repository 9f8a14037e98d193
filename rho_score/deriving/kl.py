"""The divergence job: the likeliest tokens of two models → a lower bound of their divergence at each token."""

import time
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.config import KLConfig
from rho_score.deriving.like import check_output, claim_like
from rho_score.deriving.units import Batch, DerivedUnits, Published, Tokens, finished_before, write_all
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values
from rho_score.files.folder import Folder
from rho_score.files.urls import absolute
from rho_score.ranking.divergence import REST_FLOOR, kl_lower_bound
from rho_score.stores.comparable import comparable, cut_otherwise
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.reopened import Reopened
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.signs import signs_of_life

TOP = ["top_ids", "top_log_p"]


@dataclass(frozen=True, kw_only=True)
class KLSummary:
    """What a run did. `counts` covers the whole score set; its nats are the sum of the bounds."""

    output: str
    units: int
    computed: int
    """Units that this call wrote."""
    counts: ScoreCounts
    wall_s: float


def kl(config: KLConfig) -> KLSummary:
    """Computes the divergences, or goes on where an earlier run of the same command stopped.

    Raises:
        InputError: an option is wrong, or the score sets do not belong together.
        RhoScoreError: the run failed. What it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    config = replace(config, base=absolute(config.base), ref=absolute(config.ref), output=absolute(config.output))
    check_output(config.output, config.workers)
    with joined():
        base, ref = _opened(config)
        derived = {
            "from": "kl",
            "direction": "KL(ref || base)" if config.reverse else "KL(base || ref)",
            "ref": ref.manifest["fingerprint"],
            "ref_held": ref.held,
        }
        manifest = claim_like(base, config.output, derived, precision=config.precision, places={"ref": config.ref})
        output = Folder(config.output)
        if (written := finished_before(output)) is None:
            units = DerivedUnits(
                like=config.base, output=config.output, fingerprint=manifest["fingerprint"],
                precision=manifest["parts"]["precision"],
            )  # fmt: skip
            writer = KLWriter(units=units, ref=config.ref, reverse=config.reverse)
            with signs_of_life(output, "kl"), cluster_or_threads():
                written = write_all("kl", base, output, writer.write, workers=config.workers)
    return KLSummary(
        output=config.output,
        units=base.n_units,
        computed=written.computed,
        counts=written.counts,
        wall_s=time.monotonic() - started,
    )


def _opened(config: KLConfig) -> tuple[ScoreSet, ScoreSet]:
    """The two score sets; raises InputError unless their candidates can be compared."""
    base, ref = ScoreSet.open(config.base), ScoreSet.open(config.ref)
    comparable(base, ref, ("base", "ref"))
    for scores in (base, ref):
        if "top-k" not in scores.manifest["parts"].get("signals", []):
            raise InputError(
                f"{scores.folder.url} does not hold the likeliest tokens. Score with --signals top-k into another output."
            )
    if cut_otherwise(base, [ref]):
        raise InputError(
            f"{config.ref} is cut into other units than {config.base}. Score both with the same --unit-bytes."
        )
    return base, ref


@dataclass(frozen=True, kw_only=True)
class KLWriter(Reopened):
    """Writes any batch of units. It is small, and is sent to every worker."""

    units: DerivedUnits
    ref: str
    reverse: bool

    @cached_property
    def _ref(self) -> ScoreSet:
        return ScoreSet.open(self.ref)

    def write(self, _: Batch, units: list[str]) -> list[Published]:
        """Writes these units of a batch."""
        return self.units.write(units, lambda unit, tokens: (self._bounds(unit, tokens), {}))

    def _bounds(self, unit: str, tokens: Tokens) -> np.ndarray:
        """The bound of each token, float64[n_tokens], NaN where a model has no candidates."""
        here = self.units.scores.unit_table(unit, TOP)
        there, about = self._ref.read_unit(unit, ["loss", *TOP])
        if about["content_sha256"] != tokens.about["content_sha256"]:
            raise RhoScoreError(
                f"unit {unit} holds other documents in {self.ref} than in {self.units.like}. Score both models over the same "
                "corpus with the same options."
            )
        their_loss = as_numpy(flat_values(there["loss"])).astype(np.float32, copy=False)
        lists = [flat_values(table[name]) for table in (here, there) for name in TOP]
        known = ~np.isnan(tokens.loss) & ~np.isnan(their_loss)
        for of in lists:
            known &= as_numpy(of.is_valid())
        rows = [_rows(of, known) for of in lists]
        p = (rows[0], rows[1], tokens.loss[known])
        q = (rows[2], rows[3], their_loss[known])
        if self.reverse:
            p, q = q, p
        bits = min(self.units.scores.loss_bits, self._ref.loss_bits)
        bounds = np.full(len(known), np.nan)
        bounds[known] = kl_lower_bound(
            p[0], p[1], q[0], q[1], targets=tokens.ids[known], p_loss=p[2], q_loss=q[2], floor=REST_FLOOR[bits]
        )
        return bounds


def _rows(lists: pa.ListArray, known: np.ndarray) -> np.ndarray:
    """The lists of the known tokens, which are equally long, [n_known, k]."""
    numbers: np.ndarray = as_numpy(lists.filter(pa.array(known)).flatten())
    return numbers.reshape(int(known.sum()), -1) if known.any() else numbers.reshape(0, 1)
