"""Where a run is: list, open, ranged read, stat. Nothing here writes, and nothing knows a framework."""

from aml_mirror.sources.base import Entry, Listing, Source
from aml_mirror.sources.tree import Tree

__all__ = ["Entry", "Listing", "Source", "Tree"]
