"""Programs of torch: exported ones (``.pt2``) with expressions that loading evaluates, and native libraries.

Sources: torch/export/pt2_archive/constants.py (the folders in the archive); torch/_export/serde/serialize.py
(shapes are expressions, which sympy evaluates).
"""

from __future__ import annotations

from aml_mirror.formats.base import Format, Kind, Weights
from aml_mirror.formats.numpy_files import archive_problem

PT2 = Format(
    "exported program of torch",
    (".pt2",),
    Kind.CODE,
    Weights.ALWAYS,
    archive_problem,
    run_by="torch.export.load",
)
EXECUTORCH = Format(
    "program of ExecuTorch", (".pte", ".ptl"), Kind.CODE, Weights.ALWAYS, run_by="torch's runtime"
)
