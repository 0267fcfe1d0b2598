# shellcheck shell=bash
# Shared by the scripts that start and stop the brokers of a benchmark. Sourced, with `set -euo pipefail` on and `root` set to the repository.
# A peer lives in a directory of its own: data/, config, log, pid, and peer.json, which a benchmark puts into its report.

fail() { echo "${0##*/}: $*" >&2; exit 1; }

# Milliseconds of a clock that nobody sets.
now_ms() { awk '{printf "%d", $1 * 1000}' /proc/uptime; }

# A port is free when nothing listens there.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# An ApiVersions request of version 0 (correlation id 7, no client id), and the beginning of its answer: that is what "ready" means here.
answers() {
    local answer
    answer=$( { exec 3<>"/dev/tcp/127.0.0.1/$1"; printf '\0\0\0\012\0\022\0\0\0\0\0\007\377\377' >&3; timeout 2 head -c 8 <&3 | od -An -tx1 | tr -d ' \n'; } 2>/dev/null ) || return 1
    [ "${answer:8:8}" = 00000007 ]
}

# Waits until the process answers on the port; sets started_ms. $1 pid, $2 port, $3 its log, $4 when it was started. One that does not is ended.
await_answers() {
    local deadline=$((SECONDS + 120))
    until answers "$2"; do
        kill -0 "$1" 2>/dev/null || { tail -n 20 "$3" >&2; fail "the broker ended before it answered; its log is $3"; }
        [ "$SECONDS" -lt "$deadline" ] || { kill -KILL "$1"; tail -n 20 "$3" >&2; fail "no answer on port $2 within 120 s; its log is $3"; }
        sleep 0.01
    done
    started_ms=$(($(now_ms) - $4))
}

memory_bytes() { awk '/^VmRSS/ {print $2 * 1024}' "/proc/$1/status"; }

# When a process began, in ticks since the machine did: a pid may be given to another process, the two together may not.
began_at() { awk '{sub(/.*\) /, ""); print $20}' "/proc/$1/stat" 2>/dev/null; }

note_pid() { echo "$2 $(began_at "$2")" >"$1/pid"; }

# The process that was started in a directory, if it still runs.
pid_of() {
    local pid began
    read -r pid began 2>/dev/null <"$1/pid" || return 1
    [ -n "$began" ] && [ "$(began_at "$pid")" = "$began" ] || return 1
    echo "$pid"
}

# Ends it in order: it has written what it holds when this returns.
stop_peer() {
    local pid
    pid=$(pid_of "$1") || { echo "nothing runs in $1"; return 0; }
    kill -TERM "$pid"
    local deadline=$((SECONDS + 120))
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || fail "process $pid did not end within 120 s"
        sleep 0.05
    done
    rm -f "$1/pid"
}

# $1 directory, $2 name with version, $3 pid, $4 preset; the settings are name=value lines on standard input.
write_peer_json() {
    python3 - "$1/peer.json" "$2" "$3" "$4" "$started_ms" "$(memory_bytes "$3")" 3<&0 <<'PY'
import json, os, sys
path, name, pid, preset, started_ms, memory = sys.argv[1:]
with open(f"/proc/{pid}/cmdline", "rb") as file:
    words = file.read().decode(errors="replace").split("\0")
# A class path of a hundred files says nothing.
command = ["(class path)" if previous == "-cp" else word for previous, word in zip([""] + words, words) if word]
with os.fdopen(3) as lines:
    settings = dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
peer = {"name": name, "preset": preset, "command": command, "settings": settings,
        "start_ms": int(started_ms), "idle_memory_bytes": int(memory)}
with open(path, "w") as file:
    json.dump(peer, file, indent=2)
    file.write("\n")
PY
}
