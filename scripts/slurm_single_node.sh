#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for tests and for trying launch=slurm: no systemd, no cgroups.
#
#   scripts/slurm_single_node.sh install      Debian's packages slurm-wlm and munge (root)
#   scripts/slurm_single_node.sh up           munged, slurmctld and slurmd; returns once the node takes jobs
#   eval "$(scripts/slurm_single_node.sh env)"    lets this shell's sbatch, squeue, ... talk to it
#   scripts/slurm_single_node.sh smoke        a job, an array, a GPU and a shard of one
#   scripts/slurm_single_node.sh status | logs [LINES] | down
#
# Key, sockets, state, logs and configuration lie in one folder; nothing is written to /etc or /var, and after
# `down` the folder may be removed. Root is needed for `install` alone; another user's cluster runs that user's jobs.
#
#   SLURM_DEV_DIR       that folder, which every user must be able to enter: $TMPDIR/slurm-dev-<user>
#   SLURM_DEV_CPUS      what the node claims to have, whatever it has: the cores, but at least 8
#   SLURM_DEV_MEM       likewise in MB: 65536 (no job is stopped for using more)
#   SLURM_DEV_GPUS      pretend GPUs, links to /dev/null: 2; 0: none
#   SLURM_DEV_SHARDS    shards of each of them: 4
#   SLURM_DEV_MAXARRAY  MaxArraySize: 1001, Slurm's own default
#   SLURM_DEV_KILLWAIT  seconds from SIGTERM to SIGKILL: 5
#   SLURM_DEV_PORT      slurmctld's port, slurmd takes the next one: two that are free
set -euo pipefail

ME=$(id -un)
DIR=${SLURM_DEV_DIR:-${TMPDIR:-/tmp}/slurm-dev-$ME}
CORES=$(nproc)
CPUS=${SLURM_DEV_CPUS:-$((CORES > 8 ? CORES : 8))}
MEM=${SLURM_DEV_MEM:-65536}
GPUS=${SLURM_DEV_GPUS:-2}
SHARDS=${SLURM_DEV_SHARDS:-4}
MAXARRAY=${SLURM_DEV_MAXARRAY:-1001}
KILLWAIT=${SLURM_DEV_KILLWAIT:-5}
NODE=$(hostname -s)
export PATH="$DIR/bin:$PATH:/usr/sbin:/sbin" SLURM_CONF="$DIR/slurm.conf"

fail() {
  echo "slurm_single_node.sh: $*" >&2
  exit 1
}

# running NAME PIDFILE: a pid file outlives its process, and the number may be another's by now
running() {
  [[ -s $2 && -r /proc/$(<"$2")/comm && $(<"/proc/$(<"$2")/comm") == "$1" ]]
}

free_port() {
  local port
  for _ in $(seq 50); do
    port=$((20000 + RANDOM % 20000))
    if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && ! (: <>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail "no two free ports; set SLURM_DEV_PORT"
}

configure() {
  local port gres="" types="" index
  # munged wants a key that nobody else reads, and a socket that everybody reaches.
  mkdir -p "$DIR"/{bin,munge,state,spool,log,gpu}
  chmod 755 "$DIR" "$DIR/munge"
  [[ -s $DIR/munge/key ]] || (umask 077 && head -c 1024 /dev/urandom >"$DIR/munge/key")
  chmod 400 "$DIR/munge/key"
  # A cluster that is up keeps its port.
  port=${SLURM_DEV_PORT:-$(sed -n 's/^SlurmctldPort=//p' "$SLURM_CONF" 2>/dev/null || true)}
  port=${port:-$(free_port)}
  : >"$DIR/gres.conf"
  if ((GPUS > 0)); then
    # Slurm hands out a device's index and never opens it; a plain file it would refuse.
    for ((index = 0; index < GPUS; index++)); do ln -sfn /dev/null "$DIR/gpu/nvidia$index"; done
    types="GresTypes=gpu,shard"
    gres="Gres=gpu:$GPUS,shard:$((GPUS * SHARDS))"
    {
      echo "AutoDetect=off"
      echo "NodeName=$NODE Name=gpu File=$DIR/gpu/nvidia[0-$((GPUS - 1))]"
      echo "NodeName=$NODE Name=shard Count=$((GPUS * SHARDS))"
    } >"$DIR/gres.conf"
  fi
  # cred_expire: a requeued job may start again once its old credential is void, by default after 120 seconds.
  # Partition urgent preempts main: jobs of main get SIGTERM, GraceTime later SIGKILL, and are queued again.
  cat >"$SLURM_CONF" <<CONF
ClusterName=dev
SlurmctldHost=$NODE(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$ME
SlurmdUser=$ME
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
MaxArraySize=$MAXARRAY
MaxJobCount=20000
MinJobAge=3600
KillWait=$KILLWAIT
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$types
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$MEM $gres State=UNKNOWN
PartitionName=main Nodes=$NODE Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=100 PriorityTier=1 PreemptMode=REQUEUE GraceTime=1
PartitionName=urgent Nodes=$NODE MaxTime=60 DefMemPerCPU=100 PriorityTier=10 PreemptMode=OFF
CONF
  stand_in_sacct
}

# Accounting needs a database, and without one Slurm's own sacct says only that it is disabled. This one answers
# from the controller's memory, which keeps an ended job for MinJobAge seconds.
stand_in_sacct() {
  cat >"$DIR/bin/sacct" <<'SACCT'
#!/usr/bin/env bash
# sacct -P [-n] [-X] -o JobID,State,NodeList -j 1[,2] [-j 3]
ids="" fields="JobID,State" header=yes
while (($#)); do
  case $1 in
    -j | --jobs) shift && ids+=",$1" ;;
    --jobs=*) ids+=",${1#*=}" ;;
    -o | --format) shift && fields=$1 ;;
    --format=*) fields=${1#*=} ;;
    -n | --noheader) header="" ;;
  esac
  shift
done
[[ -z $header ]] || echo "${fields//,/|}"
format=$(sed -e 's/,/|/g' -e 's/JobID/%i/' -e 's/State/%T/' -e 's/NodeList/%N/' <<<"$fields")
squeue -h -t all -o "$format" ${ids:+-j "${ids#,}"} 2>/dev/null || true
SACCT
  chmod +x "$DIR/bin/sacct"
}

up() {
  local tool state=""
  for tool in munged slurmctld slurmd sbatch; do
    command -v "$tool" >/dev/null || fail "no $tool; install it first: $0 install"
  done
  running slurmctld "$DIR/slurmctld.pid" && running slurmd "$DIR/slurmd.pid" || configure
  if ! running munged "$DIR/munge/munged.pid"; then
    rm -f "$DIR"/munge/socket*
    munged --key-file="$DIR/munge/key" --socket="$DIR/munge/socket" --pid-file="$DIR/munge/munged.pid" \
      --log-file="$DIR/munge/munged.log" --seed-file="$DIR/munge/seed" --num-threads=2
  fi
  munge --socket="$DIR/munge/socket" -n | unmunge --socket="$DIR/munge/socket" >/dev/null
  running slurmctld "$DIR/slurmctld.pid" || slurmctld -f "$SLURM_CONF" -i
  running slurmd "$DIR/slurmd.pid" || slurmd -f "$SLURM_CONF" -N "$NODE"
  for _ in $(seq 150); do
    state=$(sinfo -h -n "$NODE" -p main -o %T 2>/dev/null || true)
    case $state in
      idle | mixed | allocated)
        sinfo
        return
        ;;
      *down* | *drain*) scontrol update nodename="$NODE" state=resume 2>/dev/null || true ;;
    esac
    sleep 0.2
  done
  tail -n 20 "$DIR"/log/*.log >&2 || true
  fail "the node is '${state:-unknown}' after 30 s; the logs are in $DIR/log"
}

down() {
  local name file
  if running slurmctld "$DIR/slurmctld.pid"; then
    scancel --quiet --full --user="$ME" 2>/dev/null || true
    for _ in $(seq $((10 * (KILLWAIT + 2)))); do
      [[ -n $(squeue -h -t running,completing,suspended 2>/dev/null) ]] || break
      sleep 0.1
    done
  fi
  for name in slurmd slurmctld munged; do
    file=$DIR/$name.pid
    [[ $name != munged ]] || file=$DIR/munge/munged.pid
    ! running "$name" "$file" || kill "$(<"$file")" || true
    for _ in $(seq 50); do
      running "$name" "$file" || break
      sleep 0.1
    done
    ! running "$name" "$file" || kill -9 "$(<"$file")" || true
  done
}

smoke() {
  local kind
  srun -n2 hostname
  sbatch --quiet --wait --array=0-3 -o "$DIR/log/smoke-%a.out" --wrap 'echo "task $SLURM_ARRAY_TASK_ID on $(hostname)"'
  cat "$DIR"/log/smoke-[0-3].out
  ((GPUS == 0)) || for kind in gpu shard; do
    srun --gres=$kind:1 bash -c 'echo "'"$kind"': CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"'
  done
}

case "${1:-}" in
  install)
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
    ;;
  up) up ;;
  env) printf 'export SLURM_CONF=%q PATH=%q:$PATH\n' "$SLURM_CONF" "$DIR/bin" ;;
  smoke) smoke ;;
  status) sinfo -o '%P %a %l %T %C %m %G' && squeue ;;
  logs) tail -n "${2:-40}" "$DIR"/log/*.log "$DIR/munge/munged.log" ;;
  down) down ;;
  *)
    sed -n '2,22s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
