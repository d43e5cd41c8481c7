#!/usr/bin/env bash
# A SLURM of one node with two processors on this machine, for tests; as root, with Debian's slurm-wlm and munge.
#
#   tests/launch/slurm_here.sh start FOLDER     # then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/launch/slurm_here.sh stop FOLDER
set -euo pipefail
folder=$2

stop() {
  local name
  for name in slurmctld slurmd munged; do
    if [ -s "$folder/$name.pid" ]; then
      kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    fi
  done
}

start() {
  mkdir -p "$folder"/{state,spool,log} /run/munge
  chown munge: /run/munge
  [ -s /etc/munge/munge.key ] || { mungekey --create --force && chown munge: /etc/munge/munge.key; }
  runuser -u munge -- munged --force --pid-file="/run/munge/here.pid" --log-file=/run/munge/here.log
  ln -sf /run/munge/here.pid "$folder/munged.pid"
  cat >"$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobRequeue=1
SchedulerParameters=requeue_delay=1
KillWait=60
MpiDefault=none
ReturnToService=2
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$folder/slurm.conf
  slurmctld
  slurmd -N "$(hostname)"
  for _ in $(seq 60); do
    sinfo --noheader --format=%t 2>/dev/null | grep -q idle && return
    sleep 0.5
  done
  printf 'error: no node came up; see %s/log\n' "$folder" >&2
  return 1
}

"$1"
