#!/bin/bash
# Serves a GLM on a node of a Slurm cluster, to all that know the key; the address is in the job's output.
#   sbatch deploy/serve-slurm.sh runs/mood/model keys.txt
# From a laptop: ssh -L 8000:NODE:PORT LOGIN, then http://127.0.0.1:8000. Training: recipes/launch/slurm.sh.
#SBATCH --job-name=glmkit-serve
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@60
set -euo pipefail

model=${1:?which model: a folder, a hub name or glm-mini}
keys=${2:?a file with keys, one a line}
shift 2
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-8}"
# Two jobs on one node must not want one port.
port=$((20000 + ${SLURM_JOB_ID:-0} % 20000))
echo "http://$(hostname):$port"

# The server, not this script, gets Slurm's signal: what runs may end before the time limit.
exec ${GLMKIT:-glmkit} serve "$model" --host 0.0.0.0 --port "$port" --api-key-file "$keys" --grace 45 "$@"
