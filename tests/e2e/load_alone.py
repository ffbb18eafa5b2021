"""Programs of test_load.py, each started as a process of its own (preloaded.py)."""

import os
import socket
import sys


def logits(arguments: list[str]) -> None:
    """Without network, in another folder: the logits of each checkpoint of `paths` for the images and the text, to `out`."""
    import torch

    import pixelbert_plugin

    def refused(*arguments, **options):
        raise AssertionError("the network was asked")

    socket.socket.connect = socket.create_connection = refused
    folder, images, text, out, *paths = arguments
    os.chdir(folder)
    given = images.split(",")
    found = [pixelbert_plugin.load(path)(given if len(given) > 1 else given[0], text).logits for path in paths]
    assert not any(name.startswith("pixelbert_user_") for name in sys.modules), "the plugin was loaded"
    torch.save(found, out)


def answer(arguments: list[str]) -> None:
    """Print the logits for the image, or the error; with the plugin at `user_dir`, unless that is empty."""
    import pixelbert_plugin

    path, image, user_dir = arguments
    try:
        loaded = pixelbert_plugin.load(path, user_dir=user_dir or None)
        print(loaded(image, "is the disc red?").logits["answers"].tolist(), flush=True)
    except pixelbert_plugin.UserError as error:
        print("error:", error, flush=True)
