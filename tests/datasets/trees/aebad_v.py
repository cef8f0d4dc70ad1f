"""AeBAD-V lies in the archive of AeBAD-S."""

from tests.datasets.trees.aebad import make

__all__ = ["make"]
