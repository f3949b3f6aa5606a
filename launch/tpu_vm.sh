#!/usr/bin/env bash
# A run on a Cloud TPU VM slice, through gcloud and queued resources.
#
#   launch/tpu_vm.sh ACTION [--dry-run] [--SETTING VALUE ...]
#
#   create   ask for the slice and wait until it is there
#   install  copy the last commit to all workers and install it
#   run      start the run on all workers; it goes on when this script ends
#   resume   after preemption: delete, create, install, run; on a slice that is ready
#            only run, which leaves a run that is at work alone
#   all      resume, then watch: resume after every preemption until the run ends
#   status   states of the slice and of the run       logs     the log's last lines
#   delete   give the slice back
#
# Settings, their variables in the environment, and defaults:
#
#   --name     TPU_NAME     of slice and queued resource (sgmae)
#   --zone     TPU_ZONE     (us-central1-a)
#   --type     TPU_TYPE     accelerator type (v5litepod-16)
#   --version  TPU_VERSION  runtime version (v2-alpha-tpuv5-lite)
#   --spot     TPU_SPOT     1: may be preempted, and costs less; 0: not (1)
#   --workdir  WORKDIR      gs://BUCKET/DIRECTORY, or with nfs a path below /mnt/runs
#   --nfs      NFS          SERVER:/EXPORT, mounted at /mnt/runs
#   --config   CONFIG       to run (mae_vit_b_imagenet)
#   --extra    EXTRA        further words, such as "--config.seed=1"
#   --worker   TPU_WORKER   whose log to show (0)
#   --poll     TPU_POLL     seconds between two looks at the state (30)
#
#   launch/tpu_vm.sh all --workdir gs://my-bucket/mae && launch/tpu_vm.sh delete
#
# --dry-run prints the commands, one a line, and runs none. The states it cannot know
# are taken as preempted (resume) or missing (all).
#
# Exit code: that of a command that failed; 2 for wrong usage; `all` ends with the
# run's. A bucket is mounted with gcsfuse: give it a hierarchical namespace, so that
# renaming a finished checkpoint is one step.
set -u

usage() {
  echo "tpu_vm: $1; see the head of $0" >&2
  exit 2
}

action=${1-}
case $action in
  create | install | run | resume | all | status | logs | delete) shift ;;
  *) usage "'$action' is no action" ;;
esac

declare -A set=(
  [name]=${TPU_NAME-sgmae} [zone]=${TPU_ZONE-us-central1-a}
  [type]=${TPU_TYPE-v5litepod-16} [version]=${TPU_VERSION-v2-alpha-tpuv5-lite}
  [spot]=${TPU_SPOT-1} [workdir]=${WORKDIR-} [nfs]=${NFS-}
  [config]=${CONFIG-mae_vit_b_imagenet} [extra]=${EXTRA-}
  [worker]=${TPU_WORKER-0} [poll]=${TPU_POLL-30}
)
dry=''
while (($#)); do
  if [[ $1 == --dry-run ]]; then
    dry=1
    shift
    continue
  fi
  [[ $1 == --?* && ${set[${1#--}]+known} ]] || usage "$1 is no setting"
  (($# > 1)) || usage "$1 must be followed by a value"
  set[${1#--}]=$2
  shift 2
done

[[ ${set[name]} =~ ^[a-z]([-a-z0-9]{0,60}[a-z0-9])?$ ]] \
  || usage "name must be lower-case letters, digits and dashes"
[[ ${set[spot]} =~ ^[01]$ ]] || usage "spot must be 0 or 1"
[[ ${set[poll]} =~ ^[0-9]+(\.[0-9]+)?$ ]] || usage "poll must be seconds"
directory=''
case $action in
  run | resume | all)
    if [[ ${set[nfs]} ]]; then
      [[ ${set[nfs]} == ?*:/* ]] || usage "nfs must be SERVER:/EXPORT"
      [[ ${set[workdir]} == /mnt/runs/?* ]] || usage "workdir must be below /mnt/runs"
      directory=${set[workdir]}
    else
      [[ ${set[workdir]} =~ ^gs://([^/]+)/(.*[^/])/*$ ]] \
        || usage "workdir must be gs://BUCKET/DIRECTORY, or nfs be given"
      directory=/mnt/runs/${BASH_REMATCH[2]}
    fi
    ;;
esac

# What is installed is this repository, wherever the script is called from.
cd "$(dirname "$0")/.." || exit

# Prints words so that a shell reads the same words again.
quoted() {
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  printf '%s' "${line% }"
}

# Says a command, and runs it unless this is a dry run.
perform() {
  if [[ $dry ]]; then
    quoted "$@"
    echo
  else
    echo "+ $(quoted "$@")" >&2
    "$@"
  fi
}

tpus() {
  perform gcloud compute tpus "$@" "--zone=${set[zone]}"
}

remote() {
  tpus tpu-vm ssh "${set[name]}" "--worker=$1" "--command=$2"
}

# Leaves in REPLY the state that describing $1 with format $2 gives; $3 is the answer of
# a dry run. No answer is not the same as a slice that is not there: a slice at work
# must not be deleted because the network failed.
state() {
  local output
  if [[ $dry ]]; then
    tpus "$1" describe "${set[name]}" "--format=$2"
    REPLY=$3
  elif output=$(tpus "$1" describe "${set[name]}" "--format=$2" 2>&1); then
    REPLY=$(grep -xE '[A-Z_]+' <<<"$output" | tail -n 1)
    REPLY=${REPLY:-UNKNOWN}
  elif [[ $output == *NOT_FOUND* || $output == *"not found"* ]]; then
    REPLY=MISSING
  else
    tail -n 1 <<<"$output" >&2
    REPLY=UNKNOWN
  fi
}

node_state() {
  state tpu-vm 'value(state)' "$1"
}

queue_state() {
  state queued-resources 'value(state.state)' "$1"
}

create() {
  local spot=()
  ((set[spot])) && spot=(--spot)
  tpus queued-resources create "${set[name]}" "--node-id=${set[name]}" \
    "--accelerator-type=${set[type]}" "--runtime-version=${set[version]}" "${spot[@]}"
}

wait_until_there() {
  while queue_state ACTIVE; do
    case $REPLY in
      ACTIVE) break ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING | MISSING)
        echo "tpu_vm: the queued resource is $REPLY" >&2
        return 1
        ;;
    esac
    sleep "${set[poll]}"
  done
}

delete() {
  tpus queued-resources delete "${set[name]}" --force --quiet
}

install() {
  local archive=build/sgmae_jax.tar.gz line
  # uv brings the Python that the images lack.
  line='set -e; tar xzf sgmae_jax.tar.gz; python3 -m pip install -q uv; '
  line+='python3 -m uv venv -q --allow-existing --python 3.11 venv; '
  line+='python3 -m uv pip install -q --python venv/bin/python "./sgmae_jax[tpu]"'
  perform mkdir -p build \
    && perform git archive --format=tar.gz --prefix=sgmae_jax/ -o "$archive" HEAD \
    && tpus tpu-vm scp "$archive" "${set[name]}:" --worker=all \
    && remote all "$line"
}

# The lines below are for the workers' shells: \$ is theirs.
run() {
  local bucket=${set[workdir]#gs://} mount loop line
  if [[ ${set[nfs]} ]]; then
    mount="sudo mount -t nfs $(quoted "${set[nfs]}") /mnt/runs"
  else
    mount="sudo chown \"\$USER\" /mnt/runs"
    mount+=" && gcsfuse --implicit-dirs $(quoted "${bucket%%/*}") /mnt/runs"
  fi
  # A process that dies is started again by the loop of its worker; the other workers'
  # processes end with 6 and come back as well. The short cap keeps their waits for
  # each other below distributed.timeout.
  loop="echo \$\$ >~/run.pid; launch/preempt_loop.sh --cap 60"
  loop+=" --until $(quoted "$directory/report.html")"
  loop+=" -- ~/venv/bin/python -m sgmae_jax.main --config $(quoted "${set[config]}")"
  loop+=" --workdir $(quoted "$directory") ${set[extra]}; echo \$? >~/run.code"

  line="set -e; if { kill -0 \$(cat run.pid); } 2>/dev/null; then"
  line+=" echo at work already; exit; fi; test -x venv/bin/python;"
  line+=" sudo mkdir -p /mnt/runs; mountpoint -q /mnt/runs || { $mount; };"
  line+=" rm -f run.code; cd sgmae_jax;"
  line+=" nohup setsid bash -c $(quoted "$loop") >>~/run.log 2>&1 </dev/null &"
  remote all "$line"
}

# Takes whatever there is to a slice with the project installed. $1: the state of the
# slice in a dry run.
prepare() {
  local coming='^(CREATING|STARTING|RESTARTING|REPAIRING)$'
  while node_state "$1" && [[ $REPLY =~ $coming ]]; do
    sleep "${set[poll]}"
  done
  case $REPLY in
    READY) return ;;
    PREEMPTED | TERMINATED) delete && create ;;
    MISSING)
      queue_state "$1"
      case $REPLY in
        MISSING) create ;;
        SUSPENDING | SUSPENDED | FAILED) delete && create ;;
        UNKNOWN) false ;;
      esac
      ;;
    *)
      echo "tpu_vm: ${set[name]} is $REPLY" >&2
      false
      ;;
  esac && wait_until_there && install
}

# A slice that is ready need not have the project yet.
resume() {
  prepare "$1" && { run || { install && run; }; }
}

# Leaves in REPLY what the run has ended with on any worker: a code that no restart
# mends first, then 75 (stopped, not done; also after a reboot), then others; nothing
# while it is at work.
run_code() {
  local codes ask
  # shellcheck disable=SC2016  # The worker expands it.
  ask='{ cat run.code || kill -0 $(cat run.pid) || echo 75; } 2>/dev/null'
  if [[ $dry ]]; then
    remote all "$ask"
    codes=0
  else
    codes=$(remote all "$ask" 2>/dev/null)
  fi
  REPLY=$(grep -xE '[2345]' <<<"$codes" || grep -x 75 <<<"$codes" \
    || grep -xE '[1-9][0-9]*' <<<"$codes" || grep -x 0 <<<"$codes")
  REPLY=${REPLY%%$'\n'*}
}

# Watches until the run has ended; ends with its code.
watch_run() {
  while :; do
    [[ $dry ]] || sleep "${set[poll]}"
    node_state READY
    case $REPLY in
      READY)
        run_code
        case $REPLY in
          '') ;;
          # A worker was told to stop; if the slice goes away, the next look sees it.
          75) run ;;
          *) return "$REPLY" ;;
        esac
        ;;
      # No answer says nothing about the slice.
      UNKNOWN) ;;
      # Every way back to a ready slice, or an error.
      *)
        echo "tpu_vm: ${set[name]} is $REPLY; resuming" >&2
        resume PREEMPTED || return
        ;;
    esac
  done
}

case $action in
  create) create && wait_until_there ;;
  install) install ;;
  run) run ;;
  resume) resume PREEMPTED ;;
  all) resume MISSING && watch_run ;;
  logs) remote "${set[worker]}" 'tail -n 100 run.log' ;;
  delete) delete ;;
  status)
    queue_state ACTIVE
    [[ $dry ]] || echo "queued resource: $REPLY"
    node_state READY
    [[ $dry ]] || echo "slice: $REPLY"
    if [[ $REPLY == READY ]]; then
      run_code
      [[ $dry ]] || echo "run: ${REPLY:-at work}"
    fi
    ;;
esac
