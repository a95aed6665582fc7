#!/usr/bin/env bash
# Push the image that `make build` built, and print its name with its digest, for a workflow. Everything else goes to
# stderr.
set -euo pipefail
here=$(dirname "$0")
: "${REFERENCE:?}" "${TAG:?}" "${IMAGE:?}"

if [[ -z ${REGISTRY:-} ]]; then
    echo "error: no REGISTRY to push to: make push REGISTRY=myregistry.azurecr.io" >&2
    exit 64
fi
if [[ -n $(git status --porcelain) && -z ${ALLOW_DIRTY:-} ]]; then
    echo "error: the checkout has changes that no commit has, so nobody could build this image again: commit them," \
        "or make push ALLOW_DIRTY=1" >&2
    exit 65
fi

docker=$("$here/engine.sh" client)
target=$REGISTRY/$IMAGE
if [[ ${PLATFORMS:-} == *,* ]]; then
    metadata=$(mktemp)
    trap 'rm -f "$metadata"' EXIT
    REFERENCE=$target:$TAG PUSH=$metadata "$here/build.sh" >&2
    digest=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$metadata")
else
    "$here/build.sh" >&2
    "$docker" tag "$REFERENCE" "$target:$TAG"
    if ! "$docker" push "$target:$TAG" >&2; then
        echo "error: $target did not take the image; is there a login? docker login ${REGISTRY%%/*}" >&2
        exit 77
    fi
    digest=$("$docker" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$REFERENCE" |
        sed -n "s|^$target@||p" | head -1)
fi
if command -v cosign >/dev/null; then
    cosign sign --yes "$target@$digest" >&2
else
    echo "not signed: cosign is not on PATH" >&2
fi
echo "$target@$digest"
