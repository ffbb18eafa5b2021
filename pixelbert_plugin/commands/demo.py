"""`pixelbert-demo`: a page in a browser on which a trained model is asked."""

import argparse
import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pixelbert_plugin.commands.checkpoint import configured, loaded, read_gallery
from pixelbert_plugin.commands.command import Parser, leave, run_command, tell
from pixelbert_plugin.errors import UserError

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel
    from pixelbert_plugin.asking.search import Gallery
    from pixelbert_plugin.demo.options import DemoConfig

EPILOG = """\
examples:
  pixelbert-demo
  pixelbert-demo checkpoint=save/vqa2
  pixelbert-demo checkpoint=save/coco_retrieval images=photos device=cuda precision=bf16

keys:
  checkpoint=PATH        a run's folder (its best checkpoint), a checkpoint's folder, an exported file, or a name of the hub;
                         without it the small model that comes with the package, with a picture to begin with
  images=FOLDER          pictures to search by texts, where the model can match them; they are encoded at the start
  host=127.0.0.1         this machine alone can reach the page; 0.0.0.0: whoever reaches this machine, without a password
  port=7860              0 takes one that is free
  open_browser=true      show the page in this machine's browser
  max_upload_mb=20       of a picture that is uploaded
  explain=METHOD         how the page says where an answer comes from (docs/explanations.md)
  top_k=5  device=auto|cpu|cuda  precision=fp32|bf16|…  user_dir=PATH

What is on the page follows what the model can be asked. It loads nothing from elsewhere and reports nothing (docs/demo.md).
It needs Gradio: pip install 'pixelbert_plugin[demo]'

exit status: 0 ended by Ctrl-C or SIGTERM; 1 an unexpected error, 2 wrong input; 130 interrupted before the page was there"""


def parser() -> Parser:
    parser = Parser("pixelbert-demo", "Ask a trained model on a page in a browser.", EPILOG)
    parser.add_common("checkpoint=PATH and the keys below")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(parser(), argv, _main, "the page was not there yet")


def program() -> None:
    leave(main())


def _main(arguments: argparse.Namespace) -> int:
    from pixelbert_plugin.demo.options import DemoConfig

    config = configured(DemoConfig, arguments)

    from pixelbert_plugin.demo.page import gradio

    gradio()  # whether it is there, before a model is read
    model = _askable(config)
    _serve(config, model, _gallery(config, model))
    return 0


def _askable(config: "DemoConfig") -> "LoadedModel":
    model = loaded(config)
    if not model.task.asked():
        raise UserError(f"checkpoint={str(model.path)!r}: its task {model.config.task!r} does not say what it can be asked")
    return model


def _gallery(config: "DemoConfig", model: "LoadedModel") -> "Gallery | None":
    from pixelbert_plugin.asking.search import SearchQuestion

    return None if config.images is None else read_gallery(SearchQuestion(model), config.images, batch_size=32)


def _serve(config: "DemoConfig", model: "LoadedModel", gallery: "Gallery | None") -> None:
    """Until Ctrl-C or SIGTERM."""
    from pixelbert_plugin.config import shipped
    from pixelbert_plugin.demo.server import serving
    from pixelbert_plugin.demo.visits import Visits
    from pixelbert_plugin.system import interrupt

    folder = None if config.images is None else Path(config.images).expanduser()
    visits = Visits(model, config.top_k, gallery, folder, config.explain)
    begin = None if config.checkpoint else shipped.trained()
    name = _name(config.checkpoint) if begin is None else begin.name
    with (
        interrupt.handling(SIGTERM=interrupt.interrupt),
        serving(visits, name, config.host, config.port, config.max_upload_mb, begin) as address,
        contextlib.suppress(KeyboardInterrupt),
    ):
        tell(f"the page is at {address} ; Ctrl-C ends it")
        if config.open_browser:
            import webbrowser

            webbrowser.open(address)
        threading.Event().wait()
    tell("ended")


def _name(checkpoint: str) -> str:
    """As visitors are shown it, who are not told where things lie on this machine."""
    return Path(checkpoint).name if Path(checkpoint).is_absolute() else checkpoint


if __name__ == "__main__":
    sys.exit(main())
