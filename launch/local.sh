#!/usr/bin/env bash
# Fresh machine: makes the environment, then trains on the bundled digits. Flags are passed on to diffcurr.main,
# after --config=configs/digits.py unless they name a config themselves. Safe to run again: it resumes.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare_environment
keep_compiled
config=(--config=configs/digits.py)
for flag in "$@"; do
  case "$flag" in --config=*) config=() ;; esac
done
say "python -m diffcurr.main ${config[*]-} $*"
exec .venv/bin/python -m diffcurr.main ${config[@]+"${config[@]}"} "$@"
