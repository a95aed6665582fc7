#!/usr/bin/env bash
# The container engine: which client to call, whether an engine answers, and starting one if none does.
#
#   image/engine.sh client         print the client that can build: it has buildx, or BuildKit built in
#   image/engine.sh check          print nothing if an engine answers, else print what to do and fail
#   image/engine.sh up             start one if none answers, install what is missing (root on Debian)
#   image/engine.sh down           stop the one that `up` started
#   image/engine.sh with COMMAND…  `up`, run the command, stop what was started; without an engine, the
#                                  command still runs, and NO_ENGINE says why there is none
set -euo pipefail

# Records a started engine, so that another call stops that engine and nothing else.
STATE=${ENGINE_STATE:-/run/aml-mirror-engine}

client() {
    if [[ -n ${DOCKER:-} ]]; then
        echo "$DOCKER"
        return
    fi
    local found
    while read -r found; do
        # Up to version 22, the client uses the engine's own BuildKit. From 23 on, the plugin builds.
        if [[ $("$found" --version 2>/dev/null) =~ version\ ([0-9]+) ]] &&
            ((BASH_REMATCH[1] < 23)) || "$found" buildx version >/dev/null 2>&1; then
            echo "$found"
            return
        fi
    done < <(type -aP docker | awk '!seen[$0]++')
    echo docker
}

answers() { "$(client)" version --format '{{.Server.Version}}' >/dev/null 2>&1; }

may_start() { [[ $(id -u) == 0 && -e /etc/debian_version && $(uname -s) == Linux ]]; }

# The Debian packages for what is missing: an engine, and the tools that the tests and `make base` need.
missing() {
    answers || command -v dockerd >/dev/null && [[ $(client) != docker ]] || echo docker.io
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || echo docker-compose
    command -v mmdebstrap >/dev/null || echo mmdebstrap
    command -v docker-registry >/dev/null || echo docker-registry
}

install_missing() {
    local packages log name
    mapfile -t packages < <(missing)
    ((${#packages[@]})) || return 0
    echo "installing ${packages[*]} (once)" >&2
    log=$(mktemp)
    # Another apt process may be running.
    local apt=(apt-get -o DPkg::Lock::Timeout=300 -qy)
    "${apt[@]}" update >"$log" 2>&1 || true
    # From Debian 13 on, the client and its builder are separate packages.
    if [[ ${packages[0]} == docker.io ]]; then
        for name in docker-cli docker-buildx; do
            if apt-cache show "$name" >/dev/null 2>&1; then packages+=("$name"); fi
        done
    fi
    if ! DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --no-install-recommends "${packages[@]}" >>"$log" 2>&1; then
        tail -5 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# Start dockerd with the given flags and wait until it answers.
start() {
    local device mtu
    # A bridge whose packet size is larger than the uplink's loses packets silently.
    device=$(ip -o route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -1)
    mtu=$(cat "/sys/class/net/${device:-none}/mtu" 2>/dev/null || echo 1500)
    mkdir -p "$STATE"
    setsid dockerd --mtu "$mtu" "$@" >"$STATE/dockerd.log" 2>&1 </dev/null &
    local pid=$!
    for _ in $(seq 300); do
        if answers; then
            echo "$pid" >"$STATE/pid"
            return
        fi
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.2
    done
    kill "$pid"
    return 1
}

up() {
    if may_start && ! install_missing; then
        echo "not all that the image needs could be installed: apt-get install $(missing | paste -sd ' ')" >&2
        answers || return 1
    fi
    answers && return
    if ! may_start; then
        echo "no container engine answers: start Docker, or install it (https://docs.docker.com/engine/install)" >&2
        return 1
    fi
    # A machine that cannot change its packet filter can still build and run with the host's network.
    if ! start && ! start --iptables=false --ip6tables=false --ip-masq=false; then
        tail -3 "$STATE/dockerd.log" >&2
        echo "no container engine answers, and dockerd did not start: see $STATE/dockerd.log" >&2
        return 1
    fi
}

down() {
    [[ -e $STATE/pid ]] || return 0
    local pid
    pid=$(<"$STATE/pid")
    rm -f "$STATE/pid"
    # The process id may belong to another process by now.
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] || return 0
    kill "$pid"
    while [[ -e /proc/$pid ]]; do sleep 0.2; done
}

with() {
    local ours="" reason
    answers || ours=yes
    if reason=$(up 2>&1 >/dev/null | tee /dev/stderr); then
        [[ -z $ours ]] || trap down EXIT
        "$@"
    else
        NO_ENGINE=$(tail -1 <<<"$reason") "$@"
    fi
}

case ${1:-} in
client | up | down) "$1" ;;
check) answers || {
    echo "no container engine answers: start Docker, or \`make engine-up\` as root on Debian" >&2
    exit 1
} ;;
with)
    shift
    with "$@"
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
