# What `up` and `down` share. Sourced by both.

default_dir=${XDG_STATE_HOME:-$HOME/.local/state}/argosy

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The numbers of the nodes that live under the directory.
nodes_in() {
    local path
    for path in "$1"/node-*/config.toml; do
        [ -e "$path" ] || continue
        path=${path%/config.toml}
        printf '%s\n' "${path##*/node-}"
    done | sort -n
}

# Prints the process id of the node in this directory if it runs. A process id may have been given to somebody
# else since it was written down, so the command line has to name this very node.
running_pid() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 1
    [ -r "/proc/$pid/cmdline" ] || return 1
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$1/config.toml" || return 1
    printf '%s\n' "$pid"
}

# Asks the node in this directory to stop, and insists when it has not stopped after 40 seconds.
stop_node() {
    local pid waited=0
    pid=$(running_pid "$1") || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    while running_pid "$1" >/dev/null; do
        if [ "$waited" -ge 400 ]; then
            say "node ${1##*/node-} did not stop by itself; killing it"
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
        waited=$((waited + 1))
    done
    rm -f "$1/pid"
}
