"""`python -m pixelbert_plugin` is `pixelbert-run`."""

import os

from pixelbert_plugin.commands.run import program
from pixelbert_plugin.system import linux

if linux.PARENT_PIPE in os.environ:  # started by a sweep
    linux.end_with_pipe(int(os.environ.pop(linux.PARENT_PIPE)))
program()
