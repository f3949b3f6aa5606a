#!/usr/bin/env bash
# Measures all of it on the GPU or TPU of this machine, within nine minutes.
#
#   benchmarks/accelerator.sh [--small] [--parts "NAME ..."]
#   benchmarks/accelerator.sh --install
#
#   --install    only installs what the rest needs, into the environment of PYTHON
#   --small      toy sizes, on whatever there is: tries the script out and measures
#                nothing; may take four times as long
#   --parts      these alone; they begin when those before them would have ended at the
#                latest, or at once
#
#   PYTHON           interpreter with the project (default python)
#   OUT              folder for what is found (default accelerator)
#   MAE_REPOSITORY   a checkout of facebookresearch/mae; without it, or without torch
#                    and timm, nothing is compared with the authors' step
#   DEVICE           cpu: like --small, on the CPU
#   INSTALL          for --install: cuda (default), tpu or cpu
#
#   benchmarks/accelerator.sh --install && benchmarks/accelerator.sh
#
# $OUT/accelerator.jsonl has a line for every number as soon as it is there,
# $OUT/accelerator.md the tables made of them, $OUT/log.txt the rest of what was printed and
# $OUT/environment.txt the machine and its clocks before and after each part. A part
# that is out of time is ended, and what it has found stays. One process at a time
# uses the device; nothing else should.
#
# Exit code: 0, or 1 if a part failed or was cut off; 2 for wrong usage or no
# accelerator.
set -u -o pipefail

usage() {
  echo "accelerator: $1; see the head of $0" >&2
  exit 2
}

# Each part and the second by which it has ended: what one leaves, the next may use.
# A CPU that others use compiles slowly: where nothing is measured, there is more time.
schedule=(
  environment:25 step:200 sizes:310 attention:335 variants:395 guided:448
  eigen:466 solvers:498 loader:520 outer:530
)
small='' install='' parts='' patience=1
[[ ${DEVICE-} != cpu ]] || small=1
while (($#)); do
  case $1 in
    --small) small=1 ;;
    --install) install=1 ;;
    --parts)
      [[ ${2-} ]] || usage "--parts must be followed by names"
      parts=" $2 "
      shift
      ;;
    *) usage "$1 is no option" ;;
  esac
  shift
done
for name in $parts; do
  [[ " ${schedule[*]} " == *" $name:"* ]] || usage "$name is no part"
done
for word in timeout tee; do
  command -v "$word" >/dev/null || usage "$word is missing"
done

((!small)) || patience=4
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
python=${PYTHON-python} out=${OUT-accelerator}
export PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH}

if [[ $install ]]; then
  # In one go, so that JAX and torch agree on the libraries they share.
  case ${INSTALL-cuda} in
    cuda) jax='jax[cuda13]' ;;
    tpu) jax='jax[tpu]' ;;
    cpu) jax='jax' ;;
    *) usage "INSTALL must be cuda, tpu or cpu" ;;
  esac
  time "$python" -m pip install -r "$repository/requirements.txt" "$jax" torch timm
  exit
fi

mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
lines=$out/accelerator.jsonl log=$out/log.txt machine=$out/environment.txt
: >"$lines" && : >"$log" && : >"$machine" || exit 1
# Programs that several parts run are compiled once; an old run's are none of ours,
# or its times to compile would be those of reading.
rm -rf "$out/cache"
export JAX_COMPILATION_CACHE_DIR=$out/cache JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
# torch has the rest, in the same process.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION-0.6}
[[ ${DEVICE-} != cpu ]] || export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=''

clocks() {
  echo "== $SECONDS s, $1"
  command -v nvidia-smi >/dev/null || return 0
  nvidia-smi --format=csv \
    --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used
} >>"$machine" 2>&1

{
  date -u
  uname -a
  "$python" --version
  git -C "$repository" rev-parse HEAD
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi
    nvidia-smi -q -d CLOCK,POWER
  fi
  "$python" -m pip list --disable-pip-version-check
} >>"$machine" 2>&1

if [[ ! $small ]]; then
  found=$("$python" -c 'import jax; print(jax.default_backend())' 2>>"$log")
  [[ $found == gpu || $found == tpu ]] ||
    usage "JAX finds '$found' and neither GPU nor TPU (--small does without)"
fi

cd "$repository" || exit 1
failed=0 child=''
# shellcheck disable=SC2329  # Called by the trap.
stop() {
  [[ -z $child ]] || { kill "$child" && wait "$child"; }
  echo "accelerator: stopped; $lines" >&2
  exit 1
}
trap stop INT TERM
for entry in "${schedule[@]}"; do
  name=${entry%:*} left=$((patience * ${entry#*:} - SECONDS))
  [[ -z $parts || $parts == *" $name "* ]] || continue
  clocks "before $name"
  echo "{\"part\": \"$name\", \"limit_s\": $left}" >>"$lines"
  echo "accelerator: $name, $left s at most" | tee -a "$log"
  began=$SECONDS code=124 # as of timeout
  if ((left > 5)); then
    # In the background, so that a signal is passed on at once.
    # shellcheck disable=SC2094  # A part reads what earlier ones have written.
    timeout --kill-after=5 "$left" "$python" -u -m benchmarks.accelerator \
      --part "$name" ${small:+--small} --lines "$lines" >>"$lines" 2>>"$log" &
    child=$!
    wait "$child"
    code=$?
    child=''
  fi
  ((code == 0)) || failed=1
  echo "{\"part\": \"$name\", \"ended\": $code, \"seconds\": $((SECONDS - began))}" \
    >>"$lines"
  ((code == 0)) || echo "accelerator: $name ended with $code, see $log" >&2
done
clocks "after all"

"$python" -m benchmarks.accelerator --table "$lines" 2>>"$log" |
  tee "$out/accelerator.md" || failed=1
echo "accelerator: $SECONDS s; $lines"
exit "$failed"
