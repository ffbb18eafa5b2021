#!/usr/bin/env bash
# Train on several nodes under SLURM: one torchrun per node, resumed after every requeue.
#
#     sbatch projects/pixelbert/slurm.sh config=projects/pixelbert/configs/vqa2.yaml env.data_dir=/data
#
# Change the resources to your cluster's. env.save_dir must lie where every node sees it.
#SBATCH --job-name=pixelbert
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120  # to this script, two minutes before the limit; also what scontrol requeue and preemption send
set -uo pipefail

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
is_stopped=false

srun --kill-on-bad-exit=1 torchrun \
  --nnodes="$SLURM_NNODES" --nproc-per-node="$SLURM_GPUS_ON_NODE" --max-restarts=3 --shutdown-timeout=100 \
  --rdzv-backend=c10d --rdzv-endpoint="$head_node:29400" --rdzv-id="$SLURM_JOB_ID" \
  -m pixelbert_plugin "$@" checkpoint.resume=true &
step=$!

# torchrun hands SIGTERM to its processes, which save a checkpoint and end with status 75
trap 'is_stopped=true; scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends `wait`, not the step
  wait "$step"
  status=$?
done

if $is_stopped && [ "$status" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
