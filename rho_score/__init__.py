"""rho-score: score every token of a corpus with a reference model, and select by a global quantile.

    import rho_score as rho

    rho.score(rho.ScoreConfig(input="corpus", output="scores/ref", model="models/ref"))
    rho.score(rho.ScoreConfig(input="corpus", output="scores/base", model="models/base"))
    rho.select(rho.SelectConfig(ref=("scores/ref",), base="scores/base", output="selection", ratio=0.6))
    rho.export(rho.ExportConfig(selection="selection", output="train", format="labels"))

Each call does what the command of the same name does, and returns what the command prints. A name is imported when it is
first used, so that `import rho_score` takes no time. `docs/architecture.md` shows the packages and the layers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rho_score.version import __version__

if TYPE_CHECKING:
    from rho_score.config import (
        CompareConfig,
        CurveConfig,
        DedupConfig,
        DynamicsConfig,
        ExportConfig,
        ImportConfig,
        KLConfig,
        LossesConfig,
        PlanConfig,
        PriorConfig,
        ReportConfig,
        ScoreConfig,
        SelectConfig,
        StatusConfig,
        TrainConfig,
        TuneConfig,
    )
    from rho_score.deduplicating.job import DedupSummary, dedup
    from rho_score.deriving.import_scores import ImportSummary, import_scores
    from rho_score.deriving.kl import KLSummary, kl
    from rho_score.deriving.prior import PriorSummary, prior
    from rho_score.errors import InputError, RhoScoreError, ServerError, StorageError
    from rho_score.exporting.job import ExportSummary, export
    from rho_score.inference.scorer import Scorer
    from rho_score.ranking.divergence import kl_lower_bound
    from rho_score.reporting.compared import CompareSummary, Comparison, PartStats
    from rho_score.reporting.comparison import compare
    from rho_score.reporting.curve import Curves, load_curves
    from rho_score.reporting.page import report
    from rho_score.reporting.sample import sample_tokens
    from rho_score.scoring.job import ScoreSummary, score
    from rho_score.selecting.dynamics import DynamicsSummary, dynamics
    from rho_score.selecting.job import select
    from rho_score.selecting.kept_losses import KeptLoss, LossesSummary, losses
    from rho_score.selecting.summary import SelectSummary
    from rho_score.stores.open import open_store
    from rho_score.stores.score_set import ScoreSet
    from rho_score.stores.selection import Selection
    from rho_score.training.blocks import ScoredBlocks, collate_blocks
    from rho_score.training.job import TrainSummary, train
    from rho_score.training.selective_loss import SelectiveLoss
    from rho_score.tuning.job import TuneSummary, tune
    from rho_score.watching.job import StatusSummary, status

_MODULES = {
    "config": (
        "CompareConfig", "CurveConfig", "DedupConfig", "DynamicsConfig", "ExportConfig", "ImportConfig", "KLConfig", "LossesConfig", "PlanConfig",
        "PriorConfig", "ReportConfig", "ScoreConfig", "SelectConfig", "StatusConfig", "TrainConfig", "TuneConfig",
    ),
    "deduplicating.job": ("DedupSummary", "dedup"),
    "deriving.import_scores": ("ImportSummary", "import_scores"),
    "deriving.kl": ("KLSummary", "kl"),
    "deriving.prior": ("PriorSummary", "prior"),
    "errors": ("InputError", "RhoScoreError", "ServerError", "StorageError"),
    "exporting.job": ("ExportSummary", "export"),
    "inference.scorer": ("Scorer",),
    "ranking.divergence": ("kl_lower_bound",),
    "reporting.compared": ("CompareSummary", "Comparison", "PartStats"),
    "reporting.comparison": ("compare",),
    "reporting.curve": ("Curves", "load_curves"),
    "reporting.page": ("report",),
    "reporting.sample": ("sample_tokens",),
    "scoring.job": ("ScoreSummary", "score"),
    "selecting.dynamics": ("DynamicsSummary", "dynamics"),
    "selecting.job": ("select",),
    "selecting.kept_losses": ("KeptLoss", "LossesSummary", "losses"),
    "selecting.summary": ("SelectSummary",),
    "stores.open": ("open_store",),
    "stores.score_set": ("ScoreSet",),
    "stores.selection": ("Selection",),
    "training.blocks": ("ScoredBlocks", "collate_blocks"),
    "training.job": ("TrainSummary", "train"),
    "training.selective_loss": ("SelectiveLoss",),
    "tuning.job": ("TuneSummary", "tune"),
    "watching.job": ("StatusSummary", "status"),
}  # fmt: skip
_HOME = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "CompareConfig",
    "CompareSummary",
    "Comparison",
    "CurveConfig",
    "Curves",
    "DedupConfig",
    "DedupSummary",
    "DynamicsConfig",
    "DynamicsSummary",
    "ExportConfig",
    "ExportSummary",
    "ImportConfig",
    "ImportSummary",
    "InputError",
    "KLConfig",
    "KLSummary",
    "KeptLoss",
    "LossesConfig",
    "LossesSummary",
    "PartStats",
    "PlanConfig",
    "PriorConfig",
    "PriorSummary",
    "ReportConfig",
    "RhoScoreError",
    "ScoreConfig",
    "ScoreSet",
    "ScoreSummary",
    "ScoredBlocks",
    "Scorer",
    "SelectConfig",
    "SelectSummary",
    "Selection",
    "SelectiveLoss",
    "ServerError",
    "StatusConfig",
    "StatusSummary",
    "StorageError",
    "TrainConfig",
    "TrainSummary",
    "TuneConfig",
    "TuneSummary",
    "__version__",
    "collate_blocks",
    "compare",
    "dedup",
    "dynamics",
    "export",
    "import_scores",
    "kl",
    "kl_lower_bound",
    "load_curves",
    "losses",
    "open_store",
    "prior",
    "report",
    "sample_tokens",
    "score",
    "select",
    "status",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
