"""Which device MMF trains on: the first GPU that a process sees, or the CPU where it sees none."""

import os

from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.system import launched


def take_own_gpu() -> None:
    """Under torchrun, let each process see its own GPU alone: MMF would give all of them the first. Before CUDA is used."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    listed = None if visible is None else [name for name in visible.split(",") if name]
    if listed is not None and int(rank) >= len(listed):
        raise UserError(f"LOCAL_RANK={rank}: CUDA_VISIBLE_DEVICES={visible} has no GPU for this process; start fewer of them")
    os.environ["CUDA_VISIBLE_DEVICES"] = rank if listed is None else listed[int(rank)]


def prepare(config: RunConfig) -> None:
    """Threads of the CPU, and the same number from the same seed. Raises UserError for what MMF's trainer cannot do."""
    import torch

    from pixelbert_plugin.build import make_repeatable

    gpus, wanted, processes = torch.cuda.device_count(), config.training.device, launched.number("WORLD_SIZE", 1)
    if wanted == "cpu" and gpus:
        raise ConfigError("training.device", "'cpu', but MMF takes a GPU where it sees one; hide them by CUDA_VISIBLE_DEVICES=")
    if wanted == "cuda" and not gpus:
        raise ConfigError("training.device", "'cuda', but torch sees no CUDA device; use auto or cpu")
    if processes > 1 and not gpus:
        raise UserError(f"{processes} processes without a GPU for each: MMF trains several processes on GPUs only")
    if gpus > 1:
        raise UserError(
            f"{gpus} GPUs are visible: start one process for each, torchrun --nproc-per-node={gpus} -m pixelbert_plugin.mmf …, "
            "or choose one by CUDA_VISIBLE_DEVICES=0"
        )
    if config.training.num_threads is not None:
        torch.set_num_threads(config.training.num_threads)
    make_repeatable(torch.device("cuda" if gpus else "cpu"))
