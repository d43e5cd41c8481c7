# shellcheck shell=bash
# Sourced by local.sh, test.sh and, on each worker, tpu_pod.sh: a Python environment in .venv with what requirements.txt lists.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '== %s\n' "$*"; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  printf 'error: no Python 3.11, 3.12 or 3.13 found: install one, or name it with PYTHON=/path/to/python\n' >&2
  return 1
}

prepare_environment() {
  local stamp=.venv/installed-requirements.txt
  if cmp -s requirements.txt "$stamp"; then
    say "environment .venv is up to date"
    return
  fi
  if command -v uv >/dev/null; then
    say "making the environment .venv with uv"
    [ -x .venv/bin/python ] || uv venv --python "$(find_python 2>/dev/null || printf 3.11)" .venv # uv fetches one where there is none
    say "installing requirements.txt"
    VIRTUAL_ENV="$PWD/.venv" uv pip install -r requirements.txt
  else
    local python
    python=$(find_python)
    say "making the environment .venv with $python"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    say "installing requirements.txt (2.7 GB on disk; minutes)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  fi
  cp requirements.txt "$stamp"
}

# Where compiled programs are kept, so that a later start does not compile them again; empty for nowhere.
keep_compiled() {
  export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR-${XDG_CACHE_HOME:-$HOME/.cache}/diffcurr/compiled}"
}

# Further packages, for what not every user wants.
install() {
  if command -v uv >/dev/null; then
    VIRTUAL_ENV="$PWD/.venv" uv pip install --quiet "$@"
  else
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
  fi
}
