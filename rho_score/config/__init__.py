"""The options of every command, one frozen dataclass each.

Flags, `--help`, the keys of configuration files and the reference pages all come from these classes.
To add an option, add a field to the class of its command: a docstring under the field says what it
does, and its annotation says which group it belongs to and how its value is written.
"""

from rho_score.config.corpus import CorpusConfig
from rho_score.config.curve import CurveConfig
from rho_score.config.dynamics import DynamicsConfig
from rho_score.config.export import ExportConfig
from rho_score.config.losses import LossesConfig
from rho_score.config.option import Group
from rho_score.config.plan import PlanConfig
from rho_score.config.report import ReportConfig
from rho_score.config.score import Dtype, Precision, Quantize, ScoreConfig, ServerKind, Signal
from rho_score.config.select import SelectConfig
from rho_score.config.train import TrainConfig
from rho_score.config.tune import TuneConfig

__all__ = [
    "CorpusConfig",
    "CurveConfig",
    "Dtype",
    "DynamicsConfig",
    "ExportConfig",
    "Group",
    "LossesConfig",
    "PlanConfig",
    "Precision",
    "Quantize",
    "ReportConfig",
    "ScoreConfig",
    "SelectConfig",
    "ServerKind",
    "Signal",
    "TrainConfig",
    "TuneConfig",
]
