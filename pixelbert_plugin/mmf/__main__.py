"""`python -m pixelbert_plugin.mmf`: MMF's own trainer on our model and data sets."""

from pixelbert_plugin.commands.command import leave
from pixelbert_plugin.mmf.command_line import main

if __name__ == "__main__":
    leave(main())
