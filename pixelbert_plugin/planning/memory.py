"""The memory of one GPU, part by part, from what a dry run has seen; the parts add up to the highest moment of an update.

What torch's allocator and kernels take beside tensors nobody can count beforehand: three constants stand for it.
"""

from dataclasses import asdict, dataclass
from typing import Literal

from pixelbert_plugin.planning.cards import GB
from pixelbert_plugin.planning.simulation import Evaluation, Step, Weights

CONTEXT = int(0.6 * GB)  # CUDA's context with torch's kernels on a recent GPU
WORKSPACE = int(0.5 * GB)  # of cuDNN's convolutions and cuBLAS, which choose by what is free
COMMUNICATION = int(0.4 * GB)  # NCCL's buffers, where there are several GPUs
FRAGMENTATION = 0.05  # of the tensors: blocks that are free and too small, or kept for later


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: int  # and buffers; under fsdp the shard, and what is gathered meanwhile
    gradients: int
    master_weights: int
    optimizer_state: int
    ddp_buckets: int
    activations: int  # what the backward pass needs, with the half copies of weights that autocast makes
    working_memory: int  # above all of these at the highest moment; below 0 where gradients come as activations go
    context: int
    workspace: int
    communication: int
    fragmentation: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def of_training(
    weights: Weights, step: Step, gpus: int, parallel: Literal["ddp", "fsdp"], accumulates: bool, has_gpu: bool = True
) -> Memory:
    """`accumulates`: whether an update has several micro-batches. `has_gpu`: False leaves out the constants."""
    held, gradients, masters, state = weights.held, weights.gradients, weights.masters, weights.optimizer
    if gpus > 1 and parallel == "fsdp":  # the root's own stay gathered; of the blocks one, and the next on its way
        share = [-(-value // gpus) for value in (held, gradients, masters, state)]
        gathered = weights.outside_units + 2 * weights.largest_unit
        held, gradients, masters, state = share[0] + gathered, share[1] + weights.largest_unit, share[2], share[3]
    buckets = gradients if gpus > 1 and parallel == "ddp" else 0
    moments = [
        # the backward pass: gradients of an earlier micro-batch are there from its beginning
        step.peak + gradients if accumulates or gpus > 1 else step.peak_with_gradients,
        gradients + weights.largest_optimized // (gpus if parallel == "fsdp" else 1),  # the step, group by group
    ]
    working = max(moments) - step.saved - gradients
    tensors = held + masters + state + buckets + max(moments)
    return Memory(
        weights=held,
        gradients=gradients,
        master_weights=masters,
        optimizer_state=state,
        ddp_buckets=buckets,
        activations=step.saved,
        working_memory=working,
        context=CONTEXT if has_gpu else 0,
        workspace=WORKSPACE if has_gpu else 0,
        communication=COMMUNICATION if has_gpu and gpus > 1 else 0,
        fragmentation=round(FRAGMENTATION * tensors) if has_gpu else 0,
    )


def of_evaluation(training: Memory, evaluation: Evaluation) -> int:
    """Bytes at the highest moment of an evaluation while training: no gradients, no activations."""
    left = training.gradients + training.activations + training.working_memory
    return training.total - left + evaluation.peak
