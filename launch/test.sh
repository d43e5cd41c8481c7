#!/usr/bin/env bash
# Fresh machine: makes the environment, then checks style, types and behaviour. Flags are passed on to pytest.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare_environment
say "ruff"
.venv/bin/ruff check
.venv/bin/ruff format --check
say "mypy"
.venv/bin/mypy
say "pytest $*"
exec .venv/bin/python -m pytest "$@"
