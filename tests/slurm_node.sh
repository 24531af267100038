#!/usr/bin/env bash
# A Slurm of one node on this machine, from Debian's packages, as root: `slurm_node.sh start | stop`.
set -euo pipefail
pids=(/run/slurmd.pid /run/slurmctld.pid /run/munge/munged.pid)
if [ "$1" = stop ]; then
  for file in "${pids[@]}"; do if [ -f "$file" ]; then kill "$(cat "$file")" || true; fi; done
  exit 0
fi
if sinfo -h >/dev/null 2>&1; then exit 0; fi
if ! command -v slurmctld >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge
fi
state=/var/spool/one-slurm
rm -rf "$state"
mkdir -p /etc/slurm /etc/munge /run/munge /var/log/munge /var/lib/munge "$state"/{node,controller}
[ -f /etc/munge/munge.key ] || head -c 1024 /dev/urandom > /etc/munge/munge.key
chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
chmod 400 /etc/munge/munge.key
chmod 755 /run/munge
pgrep -x munged >/dev/null || runuser -u munge -- munged
# No accounting, as on many clusters; KillWait is what a job has between a request and the end.
cat > /etc/slurm/slurm.conf <<EOF
ClusterName=one
SlurmctldHost=$(hostname -s)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/node
SlurmdParameters=config_overrides
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=10
SlurmctldLogFile=$state/controller.log
SlurmdLogFile=$state/node.log
ReturnToService=2
NodeName=$(hostname -s) CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
slurmctld
sleep 1
slurmd
for _ in $(seq 20); do
  if sinfo -h -o %T | grep -qE 'idle|mixed|alloc'; then exit 0; fi
  sleep 1
done
echo 'the node did not come up: see the logs in '"$state" >&2
exit 1
