"""The options of every command, one frozen dataclass each.

Flags, `--help`, the keys of configuration files and the reference pages all come from these classes.
To add an option, add a field to the class of its command: a docstring under the field says what it
does, and its annotation says which group it belongs to and how its value is written.
"""

from rho_score.config.compare import CompareConfig
from rho_score.config.corpus import CorpusConfig
from rho_score.config.curve import CurveConfig
from rho_score.config.dedup import DedupConfig
from rho_score.config.dynamics import DynamicsConfig
from rho_score.config.export import ExportConfig
from rho_score.config.import_scores import ImportConfig, Level, ValuesConfig, ValueUnit
from rho_score.config.kl import KLConfig
from rho_score.config.losses import LossesConfig
from rho_score.config.option import Group
from rho_score.config.plan import PlanConfig
from rho_score.config.prior import PriorConfig
from rho_score.config.report import ReportConfig
from rho_score.config.score import Dtype, Precision, Quantize, ScoreConfig, ServerKind, Signal
from rho_score.config.select import SelectConfig
from rho_score.config.status import StatusConfig
from rho_score.config.train import TextConfig, TrainConfig
from rho_score.config.tune import TuneConfig
from rho_score.config.view import ViewConfig

__all__ = [
    "CompareConfig",
    "CorpusConfig",
    "CurveConfig",
    "DedupConfig",
    "Dtype",
    "DynamicsConfig",
    "ExportConfig",
    "Group",
    "ImportConfig",
    "KLConfig",
    "Level",
    "LossesConfig",
    "PlanConfig",
    "Precision",
    "PriorConfig",
    "Quantize",
    "ReportConfig",
    "ScoreConfig",
    "SelectConfig",
    "ServerKind",
    "Signal",
    "StatusConfig",
    "TextConfig",
    "TrainConfig",
    "TuneConfig",
    "ValueUnit",
    "ValuesConfig",
    "ViewConfig",
]
