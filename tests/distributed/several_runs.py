"""Under torchrun: run after run of a JSON list of argument lists in the same processes, so that torch is imported once."""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

from pixelbert_plugin.cli import main

if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        status = main(arguments)
        if status:
            sys.exit(status)
    if dist.is_initialized():
        dist.destroy_process_group()
