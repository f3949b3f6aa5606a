#!/usr/bin/env bash
# Runs N processes of one job on this machine, for tests and for trying things out.
#
#   launch/local_multiprocess.sh N [--devices D] [--grace S] -- COMMAND ...
#
#   N             processes, 1 to 99
#   --devices D   simulated CPU devices in each process (sets JAX_PLATFORMS, XLA_FLAGS)
#   --grace S     seconds the others get to end by themselves after one has failed;
#                 then SIGTERM, and 5 s later SIGKILL (default 40)
#
#   launch/local_multiprocess.sh 2 --devices 2 -- \
#     python -m sgmae_jax.main --config quickstart --workdir runs/two
#
# Each process is told its place by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
# JAX_PROCESS_ID; its lines start with "[i] ". SIGTERM and SIGINT go on to all.
#
# Exit code: the first 2, 3, 4 or 5 that a process ended with (no restart mends
# those), else the first that is not 0, else 0. Wrong usage: 2.
#
# No process outlives this script, nor does what it started in its process group.
# If the script itself is killed with SIGKILL, setpriv (util-linux) ends the processes;
# without setpriv they would stay. Needs bash 4.4 or newer.
set -u

usage() {
  echo "local_multiprocess: $1; see the head of $0" >&2
  exit 2
}

[[ ${1-} =~ ^[1-9][0-9]?$ ]] || usage "N must be 1 to 99"
count=$1 devices='' grace=40
shift
while (($#)) && [[ $1 != -- ]]; do
  [[ ${2-} =~ ^[0-9]{1,6}$ ]] || usage "$1 must be followed by a whole number"
  case $1 in
    --devices) devices=$((10#$2)) ;;
    --grace) grace=$((10#$2)) ;;
    *) usage "$1 is no option" ;;
  esac
  shift 2
done
[[ $devices != 0 ]] || usage "--devices must be 1 or more"
(($# > 1)) || usage "-- COMMAND is missing"
shift

# Each process gets a process group of its own, so that a terminal's Ctrl-C reaches
# this script alone and is passed on once. It also keeps SIGINT from being ignored,
# as bash would have it for background jobs without job control.
set -m

tied=()
if command -v setpriv >/dev/null && setpriv --pdeathsig KILL true 2>/dev/null; then
  tied=(setpriv --pdeathsig KILL --)
fi

# A port below those that the kernel hands out, and that nobody answers on. Another
# program may still take it first; then the job fails at its start.
free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))
    if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  return 1
}

# Signals are for the processes; this ends when their output does.
prefix() {
  trap '' INT TERM HUP
  exec sed -u "s/^/[$1] /"
}

port=$(free_port) || usage "no free port found"
places=("JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$count")
if [[ $devices ]]; then
  flags=''
  for flag in ${XLA_FLAGS-}; do
    [[ $flag == --xla_force_host_platform_device_count=* ]] || flags+="$flag "
  done
  flags+="--xla_force_host_platform_device_count=$devices"
  places+=(JAX_PLATFORMS=cpu "XLA_FLAGS=$flags")
fi

running=() prefixers=() asked='' fatal=0 first=0 failed_at='' stage=0

pass_on() {
  asked=$1
  ((${#running[@]})) && kill "-$1" "${running[@]}" 2>/dev/null
}

kill_all() {
  local pid
  for pid in "${running[@]}"; do
    kill -KILL -- "-$pid" 2>/dev/null
  done
}

trap 'pass_on TERM' TERM HUP
trap 'pass_on INT' INT
trap kill_all EXIT

for ((i = 0; i < count; i++)); do
  # A signal in between has reached those before; without the rest there is no job.
  [[ $asked ]] && first=143 && break
  exec {out}> >(prefix "$i")
  prefixers+=($!)
  exec {err}> >(exec {out}>&- && prefix "$i" >&2)
  prefixers+=($!)
  env "${places[@]}" "JAX_PROCESS_ID=$i" "${tied[@]}" "$@" \
    </dev/null >&"$out" 2>&"$err" {out}>&- {err}>&- &
  running[i]=$!
  exec {out}>&- {err}>&-
done

# Never readable: a wait without starting a program five times a second.
exec {never}<> <(:)

collect() {
  local i code
  for i in "${!running[@]}"; do
    kill -0 "${running[$i]}" 2>/dev/null && continue
    wait "${running[$i]}" 2>/dev/null
    code=$?
    # Whatever the process has left behind would hold its output open.
    kill -KILL -- "-${running[$i]}" 2>/dev/null
    unset "running[$i]"
    ((code)) || continue
    echo "local_multiprocess: process $i ended with $code" >&2
    ((first)) || first=$code
    ((fatal == 0 && code >= 2 && code <= 5)) && fatal=$code
    [[ $failed_at ]] || failed_at=$SECONDS
  done
}

while collect && ((${#running[@]})); do
  if [[ $failed_at ]]; then
    # Whole seconds: a difference of 1 may be no time at all.
    waited=$((SECONDS - failed_at - 1))
    if ((stage == 0 && waited >= grace)); then
      pass_on TERM
      stage=1
    elif ((stage == 1 && waited >= grace + 5)); then
      kill_all
      stage=2
    fi
  fi
  read -rt 0.2 -u "$never"
done

# The last lines are still on their way.
for pid in "${prefixers[@]}"; do
  for _ in {1..50}; do
    kill -0 "$pid" 2>/dev/null || break
    read -rt 0.1 -u "$never"
  done
done
exit $((fatal ? fatal : first))
