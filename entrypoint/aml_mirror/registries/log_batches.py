"""Splits rows into ``log_batch`` requests, within the server's limit of rows and a proxy's limit of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

# The limit of a request body: nginx accepts 1 MiB by default, and so does MLflow on Databricks.
BATCH_BYTES = 900_000
# The size of a row without its texts, in the indented JSON of MLflow's client.
ROW_BYTES = 170

Row = TypeVar("Row")


def in_batches(rows: Iterator[Row], size: int, text: Callable[[Row], str]) -> Iterator[list[Row]]:
    """Yield the rows in batches.

    Args:
        rows: parameters or points.
        size: the size of a batch, in rows.
        text: returns the texts that a row sends.
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
