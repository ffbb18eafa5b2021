"""`mmf_run` where MMF imports by itself: the stand-ins for what today's packages miss are made first, as if they were there."""

import sys

import pixelbert_plugin
from pixelbert_plugin.mmf.compat import import_mmf

if __name__ == "__main__":
    import_mmf()
    for name in [name for name in sys.modules if name.startswith("pixelbert_plugin.mmf")]:
        del sys.modules[name]  # MMF is to import our package, by env.user_dir
    del pixelbert_plugin.mmf
    from mmf_cli.run import run

    run(sys.argv[1:])
