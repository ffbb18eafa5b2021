"""Our components inside Facebook's MMF (facebookresearch/mmf, 1.0.0rc12), as wrapper classes made from the registry.

    python -m pixelbert_plugin.mmf config=projects/pixelbert/configs/vqa2.yaml dataset=vqa2 run_type=train_val
    mmf_run env.user_dir=pixelbert_plugin.mmf config=… model=pixelbert dataset=pixelbert_vqa2

The first runs where MMF does not import by itself any more; the second where it does: importing this package from within
MMF registers everything. docs/mmf.md has the installation.
"""

import sys

if "mmf.common.registry" in sys.modules:  # MMF is importing us, as its env.user_dir
    from pixelbert_plugin.mmf.register import register_all, user_plugins

    register_all(*user_plugins())
