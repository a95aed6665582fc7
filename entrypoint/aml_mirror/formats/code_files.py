"""Files that are or contain programs. Their contents are not examined; what runs them is named."""

from __future__ import annotations

from aml_mirror.formats.base import Format, Kind

PYTHON = Format(
    "Python",
    (".py", ".pyc", ".pyw", ".pth.py", ".ipynb", ".egg", ".whl"),
    Kind.CODE,
    run_by="whoever imports or opens it",
)
SHELL = Format(
    "shell script", (".sh", ".bash", ".zsh", ".bat", ".cmd", ".ps1"), Kind.CODE, run_by="whoever starts it"
)
SCRIPT = Format(
    "script", (".js", ".mjs", ".lua", ".rb", ".pl", ".r", ".jar", ".class", ".wasm", ".html", ".htm", ".svg"),
    Kind.CODE, run_by="whoever opens it",
)  # fmt: skip
NATIVE_LIBRARY = Format(
    "native library", (".so", ".dll", ".dylib", ".pyd", ".exe", ".o", ".a", ".cubin", ".ptx", ".node"),
    Kind.CODE,
    run_by="whoever loads it, before anything else",
)  # fmt: skip
TENSORRT = Format(
    "TensorRT engine", (".engine", ".plan", ".trt"), Kind.CODE,
    run_by="TensorRT, on the GPU and, with plugins, on the host",
)  # fmt: skip
SOURCE = Format(
    "source code",
    (".c", ".cc", ".cpp", ".cu", ".h", ".hpp", ".rs", ".go", ".java"),
    Kind.CODE,
    run_by="whoever compiles it",
)
