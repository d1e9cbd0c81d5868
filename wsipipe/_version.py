"""The version of wsipipe."""

__version__ = "0.2.0"
