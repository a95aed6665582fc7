"""Print every PART:SHARE of ``parts.toml`` as JSON, for a matrix of jobs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

parts = tomllib.loads(Path(__file__).with_name("parts.toml").read_text())
shares = [f"{name}:{share}" for name, part in parts.items() for share in range(1, part["shares"] + 1)]
print(json.dumps(shares))
