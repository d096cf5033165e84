#!/usr/bin/env bash
# A study on a Slurm cluster: `sbatch cluster/slurm.sh search_spaces/a100.yaml [--data DIR]` at the project's root, with
# .venv on a file system that every node mounts. The same command goes on with a study that was cut short.
#SBATCH --job-name=raystudy
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=88
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
# USR1, 300 s before the time is up: the study then keeps what it has, as after Ctrl-C (SIGINT may be ignored here).
set -euo pipefail
set -m   # each child is a process group of its own, and may be interrupted although it runs in the background

cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH" RAYSTUDY_HOME="${RAYSTUDY_HOME:-$PWD/studies}"
folder="$RAYSTUDY_HOME/slurm-$SLURM_JOB_ID"
mkdir -p "$folder"
chmod 700 "$folder"

# A token for this job alone, in a file only its owner can read; its path, not the token, is in the environment.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/ray_token" RAY_USAGE_STATS_ENABLED=0
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH")

# This script runs on the first node of the allocation: that is the head.
head_name=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')
head_ip=$(getent ahostsv4 "$head_name" | awk 'NR == 1 {print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
cpus=$SLURM_CPUS_PER_TASK gpus=${SLURM_GPUS_ON_NODE:-0}
export RAY_ADDRESS="$head_ip:$port" NO_PROXY="127.0.0.1,localhost,$head_ip"

children=()
# shellcheck disable=SC2317  # reached by the trap
stop() {
  trap - EXIT
  for ((i = ${#children[@]} - 1; i >= 0; i--)); do   # workers before the head
    kill -TERM "${children[i]}" 2>/dev/null || true
    wait "${children[i]}" 2>/dev/null || true
  done
  rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap stop EXIT

# Here the head is a machine with GPUs as well, and works: Slurm has lent it whole.
ray start --head --block --node-ip-address="$head_ip" --port="$port" \
  --num-cpus="$cpus" --num-gpus="$gpus" --object-store-memory="${RAYSTUDY_OBJECT_STORE:-2147483648}" \
  --dashboard-host=127.0.0.1 --temp-dir="/tmp/raystudy-$SLURM_JOB_ID" \
  >"$folder/head.log" 2>&1 &
children+=($!)

up=0
for _ in {1..60}; do
  if ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; then up=1 && break; fi
  sleep 2
done
if ((!up)); then
  echo "raystudy: no Ray answers at $RAY_ADDRESS; $folder/head.log says why" >&2 && exit 1
fi

workers=$((SLURM_JOB_NUM_NODES - 1))
if ((workers > 0)); then
  srun --nodes="$workers" --ntasks="$workers" --ntasks-per-node=1 --exclude="$head_name" --kill-on-bad-exit=0 \
    ray start --block --address="$RAY_ADDRESS" --num-cpus="$cpus" --num-gpus="$gpus" \
    --object-store-memory="${RAYSTUDY_OBJECT_STORE:-2147483648}" >"$folder/workers.log" 2>&1 &
  children+=($!)
fi
python - "$SLURM_JOB_NUM_NODES" <<'PY'
import sys, time
import ray

ray.init(log_to_driver=False)
asked, until = int(sys.argv[1]), time.monotonic() + 300
while (alive := sum(node["Alive"] for node in ray.nodes())) < asked:
    if time.monotonic() > until:
        sys.exit(f"raystudy: {alive} of {asked} nodes joined in 300 s; workers.log in the job's folder says why")
    time.sleep(1)
PY

study='' signalled=0 code=0
# shellcheck disable=SC2317  # reached by the trap
interrupt() {
  signalled=1
  if [ -n "$study" ]; then kill -TERM "$study" 2>/dev/null || true; fi
}
trap interrupt USR1 TERM INT   # before there is a study: a signal shall find it
python -m raystudy.tune "$@" &
study=$!
if ((signalled)); then interrupt; fi
wait "$study" || code=$?
while ((signalled)); do   # a signal ends `wait`, not the study
  signalled=0 again=0
  wait "$study" || again=$?
  if ((again != 127)); then code=$again; fi   # 127: it had ended, and `code` is its own
done
exit "$code"   # 0 done, 130 interrupted: submit again and it goes on
