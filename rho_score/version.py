"""The version of rho-score."""

__version__ = "0.1.0"
