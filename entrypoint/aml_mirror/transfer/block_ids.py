"""The ids of blocks, and the conditions under which a blob is written."""

from __future__ import annotations

from typing import Any

from azure.core import MatchConditions

ID_CHARACTERS = 64  # the most that Put Block takes; all ids of a blob have one length
_OFFSET_DIGITS = 12  # 2^48 bytes, more than the 190.7 TiB of the largest blob


def block_id(offset: int, digest: str) -> str:
    """Return the id of a block: its offset and 208 bits of its digest, in hexadecimal."""
    return f"{offset:0{_OFFSET_DIGITS}x}{digest[: ID_CHARACTERS - _OFFSET_DIGITS]}"


def conditions(etag: str) -> dict[str, Any]:
    """Return the condition of a commit: the blob that was seen, or that there is none."""
    if not etag:
        return {"match_condition": MatchConditions.IfMissing}
    return {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}


def plain_etag(etag: object) -> str:
    """Return an ETag without its quotes; empty if there is none."""
    return str(etag or "").strip('"')
