"""`pixelbert-predict`: one question to a trained model, or a file of them."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelbert_plugin.commands.checkpoint import configured, loaded, progress, read_gallery
from pixelbert_plugin.commands.command import Parser, leave, run_command, tell
from pixelbert_plugin.errors import UserError

if TYPE_CHECKING:
    from pixelbert_plugin.asking.journal import Journal
    from pixelbert_plugin.asking.loaded_model import LoadedModel
    from pixelbert_plugin.asking.options import PredictConfig, Way

EPILOG = """\
examples:
  pixelbert-predict image=picture.png question='what color is the shape?'
  pixelbert-predict checkpoint=save/vqa2 image=cat.jpg question='what is it?'
  pixelbert-predict image=picture.png question='what color is the shape?' explain=why.png
  pixelbert-predict checkpoint=save/nlvr2 left=a.jpg right=b.jpg statement='Both have two dogs.'
  pixelbert-predict checkpoint=save/coco_retrieval images=photos text='a dog on a beach' top_k=10
  pixelbert-predict checkpoint=save/coco_retrieval image=cat.jpg texts=captions.txt format=json
  pixelbert-predict checkpoint=save/pretrain image=cat.jpg text='a [MASK] on a table'
  pixelbert-predict checkpoint=save/vqa2 input=questions.csv output=answers.jsonl device=cuda precision=bf16

keys:
  checkpoint=PATH        a run's folder (its best checkpoint), a checkpoint's folder, an exported file, or a name of the hub;
                         without it the small model that comes with the package
  image= images= question= text= texts= left= right= statement=
                         one question, as above; texts is a text, [a, list] or a file of one a line
  input=FILE             .csv, .jsonl or .json, a question a row, with columns image, question (or image, text; left, right,
                         statement; text with images=FOLDER). Paths of images begin at its folder, or at images=FOLDER
  output=FILE            .jsonl or .csv; killed at any time, the same command goes on after the last whole row
  overwrite=true         in the place of other answers
  explain=PICTURE        a .png, .jpg or .webp to write: where on the image the answer to one question comes from, and where its
                         words look (docs/explanations.md)
  method=NAME  answer=TEXT
                         how it is explained (pixelbert-run --list), and which answer, where it is not the most probable one
  ask=WAY                answer, match, search, compare or fill, where the columns leave it open
  top_k=5  format=table|json  device=auto|cpu|cuda  precision=fp32|bf16|…  batch_size=32  user_dir=PATH

Rows that cannot be asked are listed with their reasons in OUTPUT.errors.jsonl, and end nothing (docs/asking.md).

exit status: 0 answered, also where some rows could not be, which the last line says; 1 an unexpected error, 2 wrong input,
or no row at all could be asked; 130 interrupted"""


def parser() -> Parser:
    parser = Parser("pixelbert-predict", "Ask a trained model: about an image, two, a folder, or a file of questions.", EPILOG)
    parser.add_common("checkpoint=PATH and the keys of a question, or input=FILE output=FILE")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(parser(), argv, _main, "the same command goes on after the last whole row of a file")


def program() -> None:
    leave(main())


def _main(arguments: argparse.Namespace) -> int:
    from pixelbert_plugin.asking.options import PredictConfig

    config = configured(PredictConfig, arguments)
    return _one(config) if config.input is None else _file(config)


def _one(config: "PredictConfig") -> int:
    way = config.way()
    texts = _texts(config.texts)
    _require_place(config, texts)
    model = loaded(config)
    if way == "fill" and config.ask is None and "fill" not in model.task.asked() and "match" in model.task.asked():
        way, texts = "match", config.text
    if config.explain is not None:
        _explain(config, way, texts, model)
    title, results = _asked(config, way, texts, model)
    if config.format == "json":
        tell(json.dumps(results, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        tell(_table(title, results))
    return 0


def _require_place(config: "PredictConfig", texts: Any) -> None:
    """Raises UserError where `explain` cannot be written, or is of several texts, before a model is read."""
    if config.explain is None:
        return
    from pixelbert_plugin.asking.explanation import require_writable

    if isinstance(texts, list) and len(texts) > 1:
        raise UserError(f"explain: is for one text, not for {len(texts)} (texts)")
    require_writable(Path(config.explain).expanduser(), config.overwrite, "explain")


def _explain(config: "PredictConfig", way: "Way", texts: Any, model: "LoadedModel") -> None:
    """Write the picture."""
    from pixelbert_plugin.asking.explain import explain
    from pixelbert_plugin.asking.explanation import save

    images = [config.left, config.right] if way == "compare" else config.image
    (given,) = texts if isinstance(texts, list) else [texts]
    text = {"answer": config.question, "compare": config.statement, "fill": config.text, "match": given}[way]
    found = explain(model, images, text, config.method, config.answer, None, way)
    save(found, config.explain or "", config.overwrite, "explain")
    print(f"{config.explain}: where {found.answer!r} comes from, by {found.method}", file=sys.stderr)


def _texts(given: str | list[str] | None) -> str | list[str] | None:
    """`texts` as it is, or the lines of the file that it names."""
    if not isinstance(given, str):
        return given
    try:
        path = Path(given).expanduser()
        if not path.is_file():
            return given
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"texts={given!r}: is no UTF-8 text") from error
        return given  # too long for a path, say
    if not found:
        raise UserError(f"texts={given!r}: the file holds no line")
    return found


def _asked(config: "PredictConfig", way: str, texts: Any, model: "LoadedModel") -> tuple[str, list[dict[str, Any]]]:
    """What was asked, for a title, and the rows of the result."""
    from pixelbert_plugin.asking.answering import QUESTIONS
    from pixelbert_plugin.asking.match import MatchQuestion
    from pixelbert_plugin.asking.question import ask, checked
    from pixelbert_plugin.asking.search import SearchQuestion

    question = QUESTIONS[way](model, config.top_k)  # type: ignore[index]  # one of Way
    if isinstance(question, SearchQuestion):
        with progress("searching images") as question.progress:
            (found,) = question.search(config.images or "", checked(question, config.text), config.batch_size)
        for each in found.unreadable:
            print(f"left out: {each.reason}", file=sys.stderr)
        return found.text, question.rows(found)
    if isinstance(question, MatchQuestion):
        matches: Any = ask(question, [config.image], texts if isinstance(texts, list) else [texts], config.batch_size)
        rows = [{"text": each.text, **row} for each in matches for row in question.rows(each)]
        return str(config.image), sorted(rows, key=lambda row: -row["score"])
    text = getattr(config, question.text)
    result = ask(question, [getattr(config, name) for name in question.images], text, config.batch_size)
    return text, question.rows(result)


def _table(title: str, rows: list[dict[str, Any]]) -> str:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False)
    for name, value in rows[0].items():
        is_text = isinstance(value, str)
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(name, value) for name, value in row.items()))
    console = Console()
    with console.capture() as shown:
        console.print(escape(title), highlight=False, soft_wrap=True)
        console.print(table)
    return shown.get().rstrip("\n")


def _shown(name: str, value: Any) -> str:
    from rich.markup import escape

    if isinstance(value, float):
        return f"{100 * value:.2f} %" if name == "probability" else f"{value:.3f}"
    return escape(str(value))


def _file(config: "PredictConfig") -> int:
    from pixelbert_plugin.asking import rows
    from pixelbert_plugin.asking.answering import QUESTIONS, Answering, way_of
    from pixelbert_plugin.asking.journal import Journal
    from pixelbert_plugin.asking.search import SearchQuestion

    source, target = config.files()
    found, given = rows.columns(source, "input"), f"input={str(source)!r}"
    if not (total := sum(1 for _ in rows.read(source, "input"))):
        raise UserError(f"{given}: holds no rows")
    model = loaded(config)
    way = way_of(found, model, config.ask, given)
    question = QUESTIONS[way](model, config.top_k)
    journal = Journal(target, _marks(config, source, way, model), config.overwrite)
    if journal.is_done():
        tell(f"{_told(journal)}; nothing is left to do")
        return 0
    gallery = None
    if isinstance(question, SearchQuestion):
        if config.images is None:
            raise UserError("images: is not set; name the folder that is searched")
        gallery = read_gallery(question, config.images, config.batch_size)
    folder = source.parent if config.images is None else Path(config.images)
    answering = Answering(question, way, folder, config.batch_size, gallery)
    with journal:
        with progress(f"answering {total:,} rows") as told:
            told.begin(total - journal.rows)
            answering.run(source, journal, told)
        journal.finish()
    if answering.cut:
        from pixelbert_plugin.asking.question import told_cut

        print(told_cut(model, answering.cut), file=sys.stderr)
    tell(_told(journal))
    return 0 if journal.bad < journal.rows else 2


def _marks(config: "PredictConfig", source: Path, way: str, model: "LoadedModel") -> dict[str, Any]:
    """What the answers to a file depend on."""
    from pixelbert_plugin.checkpoint.folder import DIGESTS
    from pixelbert_plugin.system.digest import digest_of

    checkpoint = model.path / DIGESTS if model.path.is_dir() else model.path
    return {
        "input": digest_of(source),
        "checkpoint": digest_of(checkpoint),
        "ask": way,
        "top_k": config.top_k,
        "images": None if config.images is None else str(Path(config.images).resolve()),
        "device": model.device.type,
        "precision": config.precision,
        "batch_size": config.batch_size,
    }


def _told(journal: "Journal") -> str:
    told = f"{journal.output}: {journal.rows - journal.bad:,} of {journal.rows:,} rows answered"
    return f"{told}; {journal.bad:,} could not be asked, listed in {journal.errors}" if journal.bad else told


if __name__ == "__main__":
    sys.exit(main())
