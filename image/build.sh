#!/usr/bin/env bash
# Build the image. `make build` calls this script with the variables that `make help` and README.md describe. Progress
# goes to stderr. stdout has the image's name, its size and the digest of its file tree.
set -euo pipefail
here=$(dirname "$0")
: "${REFERENCE:?}" "${VERSION:?}" "${REVISION:?}" "${SOURCE_DATE_EPOCH:?}"
PUBLIC_BASE=debian:trixie-slim
LOCAL_BASE=aml-mirror-base:trixie

"$here/engine.sh" check
docker=$("$here/engine.sh" client)

# The public base if it is available, or else one built here.
base() {
    if [[ -n ${BASE_IMAGE:-} ]]; then
        echo "$BASE_IMAGE"
    elif "$docker" image inspect "$PUBLIC_BASE" >/dev/null 2>&1 ||
        timeout 120 "$docker" pull -q "$PUBLIC_BASE" >/dev/null 2>&1; then
        echo "$PUBLIC_BASE"
    else
        echo "$PUBLIC_BASE cannot be pulled: on $LOCAL_BASE instead, made here from Debian's mirror" >&2
        "$docker" image inspect "$LOCAL_BASE" >/dev/null 2>&1 || "$here/base.sh" "$LOCAL_BASE"
        echo "$LOCAL_BASE"
    fi
}

base=$(base)
arguments=(
    --file "${CONTEXT:-.}/image/Dockerfile" --tag "$REFERENCE"
    # The build can use name servers and routes that only the host has (VPN, sandbox).
    --network "${BUILD_NETWORK:-host}"
    --build-arg "BASE_IMAGE=$base"
    --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION"
    --build-arg "CREATED=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
    --build-arg "SOURCE=${SOURCE:-unknown}"
)
[[ -z ${NO_CACHE:-} ]] || arguments+=(--no-cache)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if [[ ${PLATFORMS:-} == *,* ]]; then
    "$docker" buildx version >/dev/null 2>&1 || {
        echo "error: several PLATFORMS need docker buildx: https://docs.docker.com/go/buildx" >&2
        exit 1
    }
    # An engine's own store keeps one platform per name, so a build for several platforms goes directly to the registry.
    [[ -z ${PUSH:-} ]] || arguments+=(--push --metadata-file "$PUSH")
    "$docker" buildx build --platform "$PLATFORMS" "${arguments[@]}" "${CONTEXT:-.}" >&2
    [[ -n ${PUSH:-} ]] || echo "built for $PLATFORMS into the build cache; \`make push\` sends it" >&2
    exit
fi
[[ -z ${PLATFORMS:-} ]] || arguments+=(--platform "$PLATFORMS")
before=$("$docker" image inspect --format '{{.Id}}' "$REFERENCE" 2>/dev/null || true)
if ! DOCKER_BUILDKIT=1 "$docker" build --progress plain "${arguments[@]}" "${CONTEXT:-.}" >"$log" 2>&1; then
    tail -40 "$log" >&2
    echo "error: the image was not built" >&2
    exit 1
fi
# The image that had the name before would stay without a name. If a container still uses it, it stays.
if [[ -n $before && $before != "$("$docker" image inspect --format '{{.Id}}' "$REFERENCE")" ]]; then
    "$docker" image rm "$before" >/dev/null 2>&1 || true
fi
container=$("$docker" create "$REFERENCE")
trap 'rm -f "$log"; "$docker" rm "$container" >/dev/null' EXIT
tree=$("$docker" export "$container" | python3 "$here/tree_digest.py")
size=$("$docker" image inspect --format '{{.Size}}' "$REFERENCE")
echo "image  $REFERENCE"
echo "base   $base"
echo "size   $((size / 1000000)) MB"
echo "files  $tree"
