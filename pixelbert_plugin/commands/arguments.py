"""The command line of `pixelbert-run`; imports nothing heavy, so that `--help` is quick."""

from pixelbert_plugin.commands.command import Parser

FORMATS = ("safetensors", "hf", "pt2", "onnx")
DTYPES = ("fp32", "bf16")
EPILOG = """\
examples:
  pixelbert-run config=projects/pixelbert/configs/vqa2.yaml env.data_dir=/data training.batch_size=64
  pixelbert-run config=save/vqa2/config.yaml checkpoint.resume=true
  pixelbert-run config=projects/pixelbert/configs/vqa2.yaml run_type=test
  pixelbert-run config=save/vqa2/config.yaml --export vqa2.safetensors
  pixelbert-run config=save/vqa2/config.yaml --export vqa2_for_transformers --format hf
  pixelbert-run config=save/vqa2/config.yaml --export-encoders vqa2_encoders
  torchrun --nproc-per-node=8 -m pixelbert_plugin config=projects/pixelbert/configs/vqa2.yaml
  pixelbert-run --compare save/vqa2 save/vqa2_seed2
  pixelbert-run --describe pixelbert
  pixelbert-run --describe encoder
  pixelbert-run --copy-config mini/vqa2
  pixelbert-run --new-plugin my_pictures

exit status: 0 done, 1 an unexpected error, 2 wrong input, 3 the loss became NaN or infinite,
4 another process of the run was lost, 75 stopped by SIGTERM with a checkpoint saved, 130 interrupted"""


def parser() -> Parser:
    parser = Parser(
        "pixelbert-run",
        "Train and evaluate Pixel-BERT from one YAML file.",
        EPILOG,
    )
    parser.add_common(
        "config=PATH and any key of the configuration, such as training.batch_size=64; text stays as it is typed, null is "
        "none, ~/ the home folder, lists and mappings are YAML: [a, b], {a: 1}",
        debug="show the traceback of an error, and more log lines",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--list", action="store_true", help="list every registered component with its origin, and the shipped YAMLs"
    )
    instead.add_argument(
        "--describe",
        metavar="NAME",
        nargs="?",
        const="",
        help="the options of a component or of a section (training, env, …), or what a kind of component must have (task, …)",
    )
    instead.add_argument(
        "--print-config", action="store_true", help="print the resolved configuration and where each value is from"
    )
    instead.add_argument(
        "--export",
        metavar="PATH",
        help="write the best checkpoint as --format says: one .safetensors file of weights, config and vocabulary",
    )
    instead.add_argument(
        "--export-encoders",
        metavar="FOLDER",
        help="write CNN and transformer of the best checkpoint for other programs: names of torchvision, timm and transformers",
    )
    instead.add_argument(
        "--copy-config", metavar="NAME", help="put a shipped YAML into the working folder, to edit and run: vqa2, mini/vqa2, …"
    )
    instead.add_argument(
        "--compare",
        metavar="RUN",
        nargs="+",
        help="what tells runs apart, by their folders: options, metrics with confidence intervals, samples on which they "
        "differ, curves. Then key=value are resamples, seed, confidence, examples, picture, format (docs/tracking.md), and "
        "keys of the configuration that say where data are now",
    )
    instead.add_argument("--new-plugin", metavar="NAME", help="write a package: a data set, a YAML and a test, ready to train")
    instead.add_argument(
        "--dry-run",
        action="store_true",
        help="try a training up to its first update: data, parameters, shapes, memory, time of an update; nothing is saved",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of --export. hf: a folder for transformers, with a model card; pt2, onnx: the computation itself, for "
        "torch.export and ONNX Runtime, with a .json of what goes in (docs/huggingface.md)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of a .safetensors file of --export: fp32 as it was trained; bf16 halves the file, and rounds to 3 digits",
    )
    return parser
