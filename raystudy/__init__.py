"""raystudy: how well expression can be predicted from sequence, and which architecture does it."""

__version__ = "0.1.0"
