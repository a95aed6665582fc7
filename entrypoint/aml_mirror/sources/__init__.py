"""Where a run is stored: list, open, read ranges, stat. Nothing here writes or knows a framework."""

from aml_mirror.sources.base import Entry, Listing, Source
from aml_mirror.sources.tree import Tree

__all__ = ["Entry", "Listing", "Source", "Tree"]
