#!/usr/bin/env bash
# A run on a Cloud TPU slice, from your own machine, by a queued resource.
#
#   export ZONE=us-central1-a TYPE=v6e-16 RUNTIME=v2-alpha-tpuv6e
#   launch/tpu_pod.sh run --config=configs/imagenet256.py:dit_xl_2 --config.mesh.fsdp=16 --workdir=gs://BUCKET/xl \
#     --config.dataset.data_dir=/mnt/latents --config.codec.weights=/mnt/vae.safetensors
#   launch/tpu_pod.sh tail      # what the run says, from anywhere
#   launch/tpu_pod.sh delete    # what you no longer pay for
#
# run: uses the resource NAME or creates it, waits for it, copies the last commit there, installs, starts the run on all
# workers and follows it. A preempted resource is created again, and the run goes on from its last checkpoint. Called again
# while the run is still under way it follows it, so a lost connection costs nothing. See docs/tpu_pod.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-diffcurr}
POLL=${POLL:-30} # seconds
say() { printf '== %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

queued() { gcloud compute tpus queued-resources "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}; }
vm() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}; }
on() { vm ssh "$NAME" --worker="$1" --command="$2"; }

# Of the resource: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...; or ABSENT. Another error of gcloud's ends the script.
state() {
  local answer
  if answer=$(queued describe "$NAME" --format='value(state.state)' 2>&1); then
    printf '%s' "$answer"
  elif [[ $answer == *NOT_FOUND* ]]; then
    printf ABSENT
  else
    fail "gcloud: $answer"
  fi
}

delete() {
  say "deleting $NAME"
  queued delete "$NAME" --force --quiet
}

# Returns when the resource is there.
acquire() {
  local now before=
  while true; do
    now=$(state)
    [ "$now" = "$before" ] || say "$NAME: $now"
    before=$now
    case $now in
      ACTIVE) return ;;
      ABSENT)
        queued create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME" \
          ${SPOT:+--spot} --quiet
        ;;
      FAILED | SUSPENDED) delete ;;
      *) sleep "$POLL" ;;
    esac
  done
}

# Copies the last commit to all workers and installs there. A worker that has it all is not touched.
install() {
  local archive commit
  commit=$(git rev-parse HEAD)
  if on all "grep -qx $commit diffcurr/installed-commit" 2>/dev/null; then
    return
  fi
  archive=$(mktemp -d)
  git archive --output="$archive/diffcurr.tar.gz" HEAD
  say "copying $commit and installing on all workers"
  vm scp "$archive/diffcurr.tar.gz" "$NAME:" --worker=all
  rm -r "$archive"
  on all "set -e; rm -rf diffcurr; mkdir diffcurr; tar -xzf diffcurr.tar.gz -C diffcurr
    command -v uv >/dev/null || python3 -m pip install --quiet --user uv; export PATH=\$HOME/.local/bin:\$PATH
    . diffcurr/launch/common.sh; prepare_environment; install 'libtpu==0.0.42.*'; echo $commit >installed-commit"
}

running() { on all "kill -0 \$(cat diffcurr/run.pid)" >/dev/null 2>&1; }

# Starts the run on all workers, on their own, so that it outlives this connection.
start() {
  local arguments flag cache=()
  for flag in "$@"; do # where a preempted resource that was created again finds what was compiled
    case $flag in --workdir=*) cache=("--compilation_cache=${flag#--workdir=}/compiled") ;; esac
  done
  arguments=$(printf ' %q' -m diffcurr.main --coordinator=auto "${cache[@]}" "$@")
  say "starting on all workers"
  on all "cd diffcurr || exit; rm -f run.exit; touch run.log
    setsid nohup bash -c '.venv/bin/python \"\$@\" >>run.log 2>&1; echo \$? >run.new; mv run.new run.exit' diffcurr$arguments \
      </dev/null >/dev/null 2>&1 & echo \$! >run.pid"
}

# Shows what worker 0 says while the run lasts there; then, as the last line, the run's exit code.
follow() {
  on 0 "cd diffcurr && tail -n ${1:-10} --pid=\$(cat run.pid) -f run.log && echo \"exit code \$(cat run.exit)\""
}

run() {
  local code said
  [[ " $* " == *" --workdir=gs://"* ]] || fail "give --workdir=gs://BUCKET/...: a worker's own disk ends with it"
  [[ " $* " == *" --config="* ]] || fail "give --config=..."
  said=$(mktemp)
  while true; do
    acquire
    if ! running; then
      install
      start "$@"
    fi
    follow 1 | tee "$said" || say "the connection to worker 0 ended"
    code=$(sed -n 's/^exit code \([0-9]*\)$/\1/p' "$said" | tail -n 1)
    case $code in
      0)
        say "the run is complete; launch/tpu_pod.sh delete gives the chips back"
        rm "$said"
        return
        ;;
      143) say "asked to leave, it saved: going on" ;;
      '') sleep "$POLL" ;; # unknown: preempted, or only the connection was lost
      *)
        [ "$(state)" = ACTIVE ] && fail "the run ended with exit code $code; its log: launch/tpu_pod.sh tail"
        ;;
    esac
  done
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in run | tail | state | delete) ;; *) fail "say run, tail, state or delete (see the head of $0)" ;; esac
command -v gcloud >/dev/null || fail "gcloud is not installed: cloud.google.com/sdk/docs/install"
: "${ZONE:?set ZONE, such as us-central1-a}"
case $command in
  run)
    : "${TYPE:?set TYPE, such as v6e-16}" "${RUNTIME:?set RUNTIME, such as v2-alpha-tpuv6e}"
    run "$@"
    ;;
  tail) follow 100 ;;
  state) say "$(state)" ;;
  delete) delete ;;
esac
