#!/usr/bin/env bash
# A one-machine Slurm, and deploy/slurm/lossatlas.sbatch submitted to it. Run it as root on a machine with slurm-wlm that is
# no Slurm cluster: it writes /etc/slurm/slurm.conf.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d /tmp/slurm.XXXX)
name=$(hostname -s)
mkdir -p /etc/slurm /var/spool/slurmd /var/spool/slurmctld /run/munge && chown munge: /run/munge
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$name
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
NodeName=$name CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
pgrep -x munged >/dev/null || runuser -u munge -- munged
pgrep -x slurmctld >/dev/null || slurmctld
pgrep -x slurmd >/dev/null || slurmd
sleep 5
scontrol update nodename="$name" state=resume 2>/dev/null || true
sinfo
export LOSSATLAS_HOME=$work/home
sbatch --wait --nodes=1 --output="$work/job.log" deploy/slurm/lossatlas.sbatch run digits \
  --set 'scientific.loss=[kl,gift]' --set fixed.epochs=10 --set replicates=2 --set early_stopping=null || echo "sbatch: $?"
cat "$work/job.log"
.venv/bin/lossatlas status digits --home "$work/home"
