"""`python -m pixelbert_plugin.mmf`: MMF's own trainer on our model and data sets."""

import sys

from pixelbert_plugin.mmf.command_line import main

if __name__ == "__main__":
    sys.exit(main())
