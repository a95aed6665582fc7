"""What goes into one ``log_batch``: no more rows than the server takes, no more bytes than a proxy takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

# Of the body of a request: nginx takes 1 MiB unless told otherwise, and so does MLflow on Databricks.
BATCH_BYTES = 900_000
# What a row has besides its texts, in the indented JSON of MLflow's client.
ROW_BYTES = 170

Row = TypeVar("Row")


def in_batches(rows: Iterator[Row], size: int, text: Callable[[Row], str]) -> Iterator[list[Row]]:
    """Yield the rows in batches.

    Args:
        rows: parameters or points.
        size: of a batch, in rows.
        text: returns what a row sends besides numbers.
    """
    batch: list[Row] = []
    count = 0
    for row in rows:
        cost = ROW_BYTES + _json_length(text(row))
        if batch and (len(batch) == size or count + cost > BATCH_BYTES):
            yield batch
            batch, count = [], 0
        batch.append(row)
        count += cost
    if batch:
        yield batch


@lru_cache(maxsize=4096)
def _json_length(text: str) -> int:
    return len(json.dumps(text))
