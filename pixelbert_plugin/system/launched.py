"""What torchrun tells a process by variables of its environment, which a shell or a scheduler may have left there by halves."""

import os

from pixelbert_plugin.errors import UserError

UNSET = "torchrun sets such variables: start the run with it, or unset them (unset WORLD_SIZE RANK LOCAL_RANK)"


def number(name: str, default: int) -> int:
    """The whole number that a variable holds. Raises UserError."""
    value = os.environ.get(name, str(default))
    try:
        return int(value)
    except ValueError as error:
        raise UserError(f"{name}={value!r}: is no whole number; {UNSET}") from error


def place(is_connected: bool) -> tuple[int, int]:
    """World size and rank. Raises UserError where they contradict each other, or others are not told of that are not yet
    connected."""
    world_size, rank = number("WORLD_SIZE", 1), number("RANK", 0)
    if not 0 <= rank < world_size:
        raise UserError(f"RANK={rank}: is not among the processes of WORLD_SIZE={world_size}; {UNSET}")
    if world_size > 1 and not is_connected:
        missing = next((name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ), None)
        if missing is not None:
            raise UserError(f"WORLD_SIZE={world_size} is set, but {missing} is not; {UNSET}")
        number("MASTER_PORT", 0)
    return world_size, rank
