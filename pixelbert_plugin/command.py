"""What the commands share: an error is one line on stderr and an exit status."""

import os
import sys
import traceback
from collections.abc import Callable

from pixelbert_plugin.errors import RunError, UserError


def exit_status(run: Callable[[], int], debug: bool, interrupted: str) -> int:
    """The exit status of `run()`. `interrupted`: what to tell after Ctrl-C; `debug` adds the traceback of an error."""
    try:
        return run()
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return 130
    except RunError as error:
        if debug:
            traceback.print_exc()
        if not is_told_elsewhere(error):
            rank = os.environ.get("RANK", "0")
            print(f"error: {error}" if rank == "0" else f"rank {rank}: error: {error}", file=sys.stderr)
        return error.exit_status


def is_told_elsewhere(error: RunError) -> bool:
    """Whether another of torchrun's processes prints it. Before they are connected, all of a machine make the same one."""
    distributed = sys.modules.get("torch.distributed")
    is_connected = distributed is not None and distributed.is_initialized()
    return error.is_told or (not is_connected and os.environ.get("LOCAL_RANK", "0") != "0")


def split_config(options: list[str], remedy: str, is_optional: bool = False) -> tuple[str | None, list[str]]:
    """The PATH of `config=PATH`, and the other options. Raises UserError, ending in `remedy`, where it is not given once."""
    paths = [option.removeprefix("config=") for option in options if option.startswith("config=")]
    if len(paths) > 1 or not (paths or is_optional):
        raise UserError(f"config=PATH is given {len(paths)} times; {remedy}")
    return (paths[0] if paths else None), [option for option in options if not option.startswith("config=")]
