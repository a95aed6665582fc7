#!/usr/bin/env bash
# Build the base image $1 (`aml-mirror-base:trixie`) from Debian's mirror, for machines that reach no registry. It has
# the same suite as the public debian:trixie-slim and, like that image, no documentation and translations.
#
# It trusts the certificate authorities of this machine, so that a build in it can reach what the machine can reach.
set -euo pipefail
here=$(dirname "$0")
target=$1 suite=${1##*:}
# The mirror that this machine's own apt uses. DEBIAN_MIRROR is the address above /debian.
# shellcheck disable=SC2016  # apt expands it, not the shell
addresses=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null || true)
mirror=${DEBIAN_MIRROR:-$(sed -n 's|/debian/*$||p' <<<"$addresses" | head -1)}
security=$(sed -n 's|/*$||; /\/debian-security$/p' <<<"$addresses" | head -1)
[[ -n $security && -z ${DEBIAN_MIRROR:-} ]] || security=$mirror/debian-security
authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

command -v mmdebstrap >/dev/null || {
    echo "error: mmdebstrap is needed to make a base image: apt-get install mmdebstrap" >&2
    exit 1
}
if [[ -z $mirror ]]; then
    echo "error: apt names no mirror of Debian here: DEBIAN_MIRROR=http://… make base" >&2
    exit 78
fi
docker=$("$here/engine.sh" client)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/sources" <<SOURCES
deb $mirror/debian $suite main
deb $mirror/debian $suite-updates main
deb $security $suite-security main
SOURCES
# Where a package brings the authorities (pip does), the machine's are added to Debian's.
cat >"$work/customize" <<'HOOK'
#!/bin/sh
set -eu
if [ -e "$AUTHORITIES" ]; then
    mkdir -p "$1/usr/local/share/ca-certificates" "$1/etc/ssl/certs"
    cp "$AUTHORITIES" "$1/usr/local/share/ca-certificates/machine.crt"
    cp "$AUTHORITIES" "$1/etc/ssl/certs/ca-certificates.crt"
fi
# The machine's own name and name servers are no part of it: the engine writes both into each container.
: > "$1/etc/hostname"
: > "$1/etc/resolv.conf"
HOOK
chmod +x "$work/customize"
echo "making $target from $mirror (once)" >&2
if ! AUTHORITIES=$authorities mmdebstrap --quiet --variant=apt \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="$work/customize" "$suite" "$work/base.tar" - <"$work/sources" 2>"$work/log"; then
    tail -5 "$work/log" >&2
    echo "error: no base image could be made from $mirror (DEBIAN_MIRROR names another mirror)" >&2
    exit 1
fi
"$docker" import --change 'CMD ["bash"]' "$work/base.tar" "$target" >/dev/null
