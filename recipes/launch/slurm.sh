#!/bin/bash
# Pretrains on several nodes under Slurm; after a time limit or a preemption it is queued again and goes on.
#   sbatch --nodes=4 recipes/launch/slurm.sh recipes/pretrain-10b.yaml data.rows_per_step=512 distribution.shards=8
# The repository or the installed package, the corpus and trainer.output_dir lie on a file system that all nodes share.
#SBATCH --job-name=glmkit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -euo pipefail

# One torchrun for each node; it starts one process for each of the node's GPUs. The first node is where they meet.
: "${SLURM_JOB_NUM_NODES:=1}" "${SLURM_JOB_ID:=0}" "${PROCESSES_PER_NODE:=${SLURM_GPUS_ON_NODE:-1}}" "${PORT:=29500}"
: "${HEAD:=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" 2>/dev/null | head -n 1 || true)}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}" HEAD

# --shutdown-timeout: how long processes may take to save a checkpoint after SIGTERM before they are killed.
status=0
${SRUN:-srun --kill-on-bad-exit=1} torchrun \
  --nnodes="$SLURM_JOB_NUM_NODES" \
  --nproc-per-node="$PROCESSES_PER_NODE" \
  --rdzv-backend=c10d \
  --rdzv-id="$SLURM_JOB_ID" \
  --rdzv-endpoint="${HEAD:-localhost}:$PORT" \
  --max-restarts=3 \
  --shutdown-timeout=240 \
  --no-python glmkit pretrain "$@" || status=$?

# Not finished: queue the job again, it goes on from its last checkpoint. A job that ends in its first two minutes is
# wrong itself, and stays ended.
if [[ $status -ne 0 && -n "${SLURM_JOB_NODELIST:-}" && $SECONDS -gt 120 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
