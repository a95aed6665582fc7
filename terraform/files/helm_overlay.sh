#!/bin/sh
# Writes or applies the overlay. The module's provisioners run this script and pass everything in environment
# variables.
#
#   helm_overlay.sh upgrade   RELEASE NAMESPACE CHART VERSION OVERLAY OUTPUTS_KEY OUTPUTS_NAME
#   helm_overlay.sh restore   the same, and a release that is gone is no error
#   helm_overlay.sh write     FILE OVERLAY
#   helm_overlay.sh rewrite   FILE OVERLAY   (only a file that is still there)
#
# Exits 0, or 1 with one line on stderr: what is wrong, where, what to do.
set -eu

fail() {
    printf '%s\n' "azureml-mirror: $1" >&2
    exit 1
}

# The last line that is not blank, because Helm prints its warnings first and its error last.
last_line() {
    printf '%s\n' "$1" | sed '/^[[:space:]]*$/d' | tail -n 1
}

upgrade() {
    where="release $RELEASE in namespace $NAMESPACE"
    command -v helm >/dev/null 2>&1 ||
        fail "helm is not on PATH, so $where was not changed. Install helm, or use helm_values_file instead of helm_release."

    # Values may contain secrets, so they stay in a variable and are never printed.
    if ! values=$(helm get values "$RELEASE" --namespace "$NAMESPACE" --output json 2>&1); then
        case "$1 $values" in
        "restore "*"release: not found"*)
            echo "azureml-mirror: $where is gone, and the variables with it"
            exit 0
            ;;
        esac
        fail "helm cannot read $where: $(last_line "$values"). Check helm_release against 'helm list --all-namespaces' and the kubeconfig, then run terraform again."
    fi

    # --reuse-values keeps a key that the overlay no longer has, even one that is set to null: Helm stores the values
    # of the last revision as the chart's defaults. --reset-then-reuse-values (Helm 3.14) starts with the
    # chart's own defaults.
    reuse=--reuse-values
    gone=
    case "$OVERLAY" in
    *"\"$OUTPUTS_NAME\":"*) ;;
    *)
        case "$values" in
        *"\"$OUTPUTS_NAME\":"*) reuse=--reset-then-reuse-values gone="$OUTPUTS_KEY=null" ;;
        esac
        ;;
    esac
    set -- upgrade "$RELEASE" "$CHART" --namespace "$NAMESPACE" "$reuse" --values -
    if [ -n "$gone" ]; then
        set -- "$@" --set "$gone"
    fi
    if [ -n "$VERSION" ]; then
        set -- "$@" --version "$VERSION"
    fi

    # Helm's notes are discarded, because charts print passwords in them.
    if ! said=$(printf '%s' "$OVERLAY" | helm "$@" 2>&1 >/dev/null); then
        fail "helm upgrade of $where failed: $(last_line "$said"). Correct that ('helm history $RELEASE --namespace $NAMESPACE' shows its state) and run terraform again."
    fi
}

write() {
    folder=$(dirname -- "$FILE")
    [ ! -d "$FILE" ] || fail "helm_values_file $FILE is a folder. Give the path of a file, for example $FILE/osmo-azureml-mirror.yaml."
    mkdir -p -- "$folder" 2>/dev/null ||
        fail "the folder $folder for helm_values_file cannot be made. Make it, or give another path, and run terraform again."
    # Write to a temporary file and rename it, so that a helm that reads it meanwhile never sees half.
    temporary="$FILE.$$.tmp"
    { printf '%s' "$OVERLAY" >"$temporary" && mv -f -- "$temporary" "$FILE"; } 2>/dev/null || {
        rm -f -- "$temporary"
        fail "helm_values_file $FILE cannot be written. Give a path that can be, and run terraform again."
    }
}

case "${1-}" in
upgrade | restore) upgrade "$1" ;;
write) write ;;
rewrite) if [ -f "$FILE" ]; then write; fi ;;
*) fail "usage: helm_overlay.sh upgrade|restore|write|rewrite" ;;
esac
