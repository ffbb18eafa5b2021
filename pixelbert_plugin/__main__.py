"""`python -m pixelbert_plugin` is `pixelbert-run`."""

import sys

from pixelbert_plugin.cli import main

sys.exit(main())
