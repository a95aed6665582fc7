#!/usr/bin/env bash
# Write the image $1 (a name with a digest) into the given workflows and manifests that name the mirror's image by
# digest, in the line `image:` below `default-values:` or of a container. It is an error if no file has one.
set -euo pipefail
reference=$1
shift
if ! [[ $reference =~ ^[a-zA-Z0-9._:/-]+/aml-mirror@sha256:[0-9a-f]{64}$ ]]; then
    echo "error: $reference is no name by digest: REGISTRY/aml-mirror@sha256:<64 hexadecimal digits>" >&2
    exit 64
fi
line='^( +)image: [^ ]+/aml-mirror@sha256:[0-9a-f]{64}$'
mapfile -t files < <(grep -lE "$line" "$@")
if [[ ${#files[@]} == 0 ]]; then
    echo "error: no line \`image: REGISTRY/aml-mirror@sha256:…\` in $*" >&2
    exit 65
fi
sed -i -E "s|$line|\1image: $reference|" "${files[@]}"
