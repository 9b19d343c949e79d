# What the scripts beside this file share: settings that are files of the kernel, shown, set, and set
# back. A script says which files get which values (`wanted`, lines of FILE VALUE), what `apply`
# takes (`arguments`), and ends with `knob "$@"`.
#
# 1. What was there before is written down before anything is set, and nothing is set twice.
# 2. Everything or nothing: where one file refuses, those before it are set back.
# 3. What cannot be done on this machine is refused with the reason, exit code 3.
set -euo pipefail
name=$(basename "$0")
if [ "$(id -u)" = 0 ]; then
    state=/run/ringside-tuning/$name
else
    state=${XDG_STATE_HOME:-$HOME/.local/state}/ringside-tuning/$name
fi

usage() {
    echo "usage: tuning/$name show | apply${arguments:+ $arguments} | revert" >&2
    exit 2
}

refuse() {
    echo "tuning/$name: $1" >&2
    exit 3
}

# A file's setting; of a choice such as `always [madvise] never`, what is chosen.
setting() { # FILE
    local text
    text=$(<"$1")
    if [[ $text =~ \[([^]]+)\] ]]; then text=${BASH_REMATCH[1]}; fi
    echo "${text//$'\t'/ }"
}

put() { # FILE VALUE: fails where the kernel refuses it or keeps something else
    { echo "$2" >"$1"; } 2>/dev/null && [ "$(setting "$1")" = "$2" ]
}

show() {
    local list file value
    list=$(wanted)
    while read -r file value; do
        if [ -e "$file" ]; then echo "$file $(setting "$file")"; else echo "$file is missing"; fi
    done < <(printf '%s' "${list:+$list$'\n'}")
    if [ -e "$state" ]; then
        echo "applied; before:"
        cat "$state"
    else
        echo "not applied"
    fi
}

apply() {
    local list file value before
    list=$(wanted "$@") # What is wrong with the arguments ends the script here.
    [ -n "$list" ] || refuse "there is nothing here that it could set"
    [ ! -e "$state" ] || refuse "is applied already; revert comes first ($state)"
    before=$(
        while read -r file value; do
            [ -e "$file" ] || refuse "this kernel has no $file"
            [ -w "$file" ] || refuse "$file cannot be written: it takes root"
            echo "$file $(setting "$file")"
        done <<<"$list"
    )
    mkdir -p "$(dirname "$state")"
    echo "$before" >"$state"
    while read -r file value; do
        if ! put "$file" "$value"; then
            revert >/dev/null
            refuse "$file does not take $value"
        fi
        echo "$file $value"
    done <<<"$list"
}

revert() {
    local file value
    if [ ! -e "$state" ]; then
        echo "not applied"
        return
    fi
    while read -r file value; do
        put "$file" "$value" || refuse "$file does not take its former $value back; see $state"
        echo "$file $value"
    done <"$state"
    rm "$state"
}

knob() { # show | apply ARGUMENTS... | revert
    local what=${1:-}
    shift || true
    case $what in
        show | revert) [ $# = 0 ] || usage ;;
        apply) ;;
        *) usage ;;
    esac
    "$what" "$@"
}
