#!/usr/bin/env bash
# Runs a command again until it is done, or until no restart would mend it.
#
#   launch/preempt_loop.sh [OPTIONS] -- COMMAND ...
#
#   --max N       restarts in a row before giving up (default 100; 0 for none)
#   --wait S      seconds before the first restart; each further one waits twice as
#                 long, and of each wait a random half to all is taken (default 5)
#   --cap S       longest wait (default 300)
#   --steady S    a run that lasted so long starts count and waits anew (default 600)
#   --until FILE  only a run that has left FILE is done
#   --fatal FILE  leaves the exit code in FILE when it is 2, 3, 4 or 5
#
#   launch/preempt_loop.sh --until runs/mae/report.html -- \
#     python -m sgmae_jax.main --config mae_tiny_cifar10 --workdir runs/mae
#
# Ends with the command's code on 0, 2, 3, 4 and 5: done; bad config; no usable
# checkpoint; too many non-finite steps; checkpoints cannot be written. Any other code
# (a crash, a kill, 6: other processes are gone) is worth a restart: the run goes on
# from its last checkpoint.
#
# The program also ends with 0 when a SIGTERM from elsewhere stopped it with
# everything saved. Only --until tells that from done: then 0 without FILE is worth a
# restart too, and this script ends with 75 where it ends with an unfinished run.
#
# SIGTERM and SIGINT go on to the command, and there is no restart after them; a second
# one kills. If this script is killed with SIGKILL, setpriv (util-linux), where there
# is one, sends the command SIGTERM. Needs bash 4.4 or newer.
set -u

usage() {
  echo "preempt_loop: $1; see the head of $0" >&2
  exit 2
}

# Seconds such as 5 or 0.25 as milliseconds, for bash counts in whole numbers.
milliseconds() {
  [[ $2 =~ ^([0-9]{1,6})(\.([0-9]{1,3}))?$ ]] || usage "$1 must be seconds"
  local part="${BASH_REMATCH[3]}000"
  REPLY=$((10#${BASH_REMATCH[1]} * 1000 + 10#${part:0:3}))
}

max=100 wait=5000 cap=300000 steady=600000 until='' fatal=''
while (($#)) && [[ $1 != -- ]]; do
  [[ ${2-} && $2 != -- ]] || usage "$1 must be followed by a value"
  case $1 in
    --max)
      [[ $2 =~ ^[0-9]{1,6}$ ]] || usage "--max must be a whole number"
      max=$((10#$2))
      ;;
    --wait) milliseconds "$1" "$2" && wait=$REPLY ;;
    --cap) milliseconds "$1" "$2" && cap=$REPLY ;;
    --steady) milliseconds "$1" "$2" && steady=$REPLY ;;
    --until) until=$2 ;;
    --fatal) fatal=$2 ;;
    *) usage "$1 is no option" ;;
  esac
  shift 2
done
(($# > 1)) || usage "-- COMMAND is missing"
shift

# A process group for the command: a terminal's Ctrl-C comes here alone and is passed
# on once, SIGINT is not ignored, and what the command leaves behind can be ended.
set -m

tied=()
if command -v setpriv >/dev/null && setpriv --pdeathsig TERM true 2>/dev/null; then
  tied=(setpriv --pdeathsig TERM --)
fi

child='' asked='' told='' signals=0

# The first signal asks the command to end, a second one kills it.
# shellcheck disable=SC2329  # Called by the traps.
on_signal() {
  local signal=$1
  [[ $told ]] && signal=KILL
  asked=$1
  signals=$((signals + 1))
  if [[ $child ]]; then
    kill "-$signal" "$child" 2>/dev/null
    told=1
  fi
}

trap 'on_signal TERM' TERM
trap 'on_signal INT' INT
trap '[[ $child ]] && kill -KILL -- "-$child" 2>/dev/null' EXIT

# Never readable: a pause that a signal ends, without a program to wait for.
exec {never}<> <(:)

# Runs the command once; its exit code is left in `code`.
run_once() {
  local seen status
  "${tied[@]}" "$@" </dev/null {never}>&- &
  child=$!
  # A signal that came before the child was known has reached nobody yet.
  [[ $asked && ! $told ]] && kill "-$asked" "$child" 2>/dev/null && told=1
  code=''
  while :; do
    seen=$signals
    wait "$child" 2>/dev/null
    status=$?
    # 127 the second time: the wait before had already fetched the code.
    [[ $code && $status == 127 ]] || code=$status
    # A trapped signal ends the wait early, with a code of its own: wait once more.
    ((signals == seen)) && break
  done
  # What the command left behind must not hold the run directory's lock.
  kill -KILL -- "-$child" 2>/dev/null
  child=''
}

# Ends the script; unfinished runs must not look done.
finish() {
  if [[ $fatal && $code =~ ^[2345]$ ]]; then
    echo "$code" >"$fatal"
  fi
  if ((code == 0)) && [[ $until && ! -e $until ]]; then
    code=75
  fi
  exit "$code"
}

# Waits REPLY milliseconds, or until a signal.
pause() {
  local left=$REPLY step
  while ((left > 0)) && [[ ! $asked ]]; do
    step=$((left < 200 ? left : 200))
    read -rt "$(printf '0.%03d' "$step")" -u "$never"
    left=$((left - step))
  done
}

restarts=0 next=$wait code=143
while [[ ! $asked ]]; do
  began=$SECONDS
  run_once "$@"
  [[ $asked ]] && break
  case $code in
    0) [[ $until && ! -e $until ]] || finish ;;
    2 | 3 | 4 | 5) finish ;;
  esac
  if (((SECONDS - began) * 1000 >= steady)); then
    restarts=0 next=$wait
  fi
  ((restarts < max)) || break
  restarts=$((restarts + 1))
  ((next = next < cap ? next : cap, REPLY = next / 2 + RANDOM * (next / 2) / 32767))
  printf 'preempt_loop: %(%FT%T)T: ended with %d; restart %d of %d in %d.%03d s\n' \
    -1 "$code" "$restarts" "$max" $((REPLY / 1000)) $((REPLY % 1000)) >&2
  ((next *= 2))
  pause
done
finish
