#!/usr/bin/env bash
# Makes a Python environment with supervisord, for `cargo figures` to compare with.
#
#   install_supervisord.sh DIR
#
# DIR becomes a virtual environment; a second run finds the program there and returns at once.
# Exit status: 0 installed, else it cannot be had here, and stderr says why.
set -euo pipefail

readonly SUPERVISOR=4.3.0
readonly DIRECTORY=${1:?usage: install_supervisord.sh DIR}

[[ -x $DIRECTORY/bin/supervisord ]] && exit 0
python3 -m venv "$DIRECTORY" >&2
"$DIRECTORY/bin/pip" install --quiet --disable-pip-version-check "supervisor==$SUPERVISOR" >&2
