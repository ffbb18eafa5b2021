"""What the commands share: an error is one line on stderr and an exit status."""

import sys
import traceback
from collections.abc import Callable

from pixelbert_plugin.errors import RunError


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
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
