#!/bin/sh
# Prepare the virtual environment in the folder $1: remove what the program never reads, and compile the rest.
set -eu
libraries=$(echo "$1"/lib/python3*/site-packages)

# The tests that packages contain. Modules such as `mlflow/pytest` are part of a package and stay.
for tests in certifi/tests colorama/tests gitdb/test jsonschema/tests jsonschema_specifications/tests \
    referencing/tests smmap/test; do
    rm -rf "${libraries:?}/$tests"
done
# Type stubs and C sources: for editors, type checkers and compilers.
find "$libraries" -type f \( -name '*.pyi' -o -name '*.h' -o -name '*.c' \) -delete
# Scripts that change a shell's PATH, and the libraries' programs, because the image has one program.
find "$1/bin" -mindepth 1 -not -name 'python*' -delete

# Byte code, because pods start faster with it and cannot write it later to a read-only file system. It contains the
# source's hash, not its time, and is not checked against it. A compiler process's output depends on what it compiled
# before, so each process gets the same files in the same order.
find "$libraries" -mindepth 1 -maxdepth 1 -print0 | sort -z \
    | PYTHONHASHSEED=0 xargs -0 -P "$(nproc)" -n 4 python3 -m compileall -q --invalidation-mode unchecked-hash
