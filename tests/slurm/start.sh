#!/bin/sh
# Starts a SLURM of this one machine, as root: sh tests/slurm/start.sh. Debian's packages slurm-wlm and munge are needed.
# No cgroups and no accounting, so that it runs in a container. `sh tests/slurm/start.sh stop` stops it.
# Everything of it is in /tmp/slurm-of-tests; a SLURM that is set up in /etc/slurm is left alone.
set -eu
state=/tmp/slurm-of-tests
export SLURM_CONF=$state/slurm.conf   # for every command of SLURM that is to use this one

stop() {
    for daemon in slurmctld slurmd; do
        [ -f "$state/$daemon.pid" ] || continue
        pid=$(cat "$state/$daemon.pid")
        kill "$pid" 2>/dev/null || continue
        while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    done
}

stop
[ "${1:-}" = stop ] && exit 0

rm -rf "$state"
mkdir -p "$state/ctld" "$state/d"
host=$(hostname -s)
getent hosts "$host" > /dev/null || echo "127.0.0.1 $host" >> /etc/hosts
cat > "$SLURM_CONF" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmdParameters=config_overrides
AuthType=auth/munge
CredType=cred/munge
AuthInfo=cred_expire=5
SlurmUser=root
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=300
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=tests Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF

mkdir -p /run/munge
chown munge: /run/munge
[ -f /etc/munge/munge.key ] || { head -c 1024 /dev/urandom > /etc/munge/munge.key; chown munge: /etc/munge/munge.key; chmod 400 /etc/munge/munge.key; }
munge -n > /dev/null 2>&1 || { setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged --pid-file /run/munge/munged.pid; }
slurmctld
slurmd
for _ in $(seq 60); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && { sinfo; exit 0; }
    sleep 0.5
done
echo "SLURM does not start; its logs are in $state" >&2
tail -n 20 "$state"/*.log >&2
exit 1
