"""Which method of explaining finds what an answer comes from, on scenes whose truth is known.

    python benchmarks/explanations.py --write docs/explanations.md      # trains a model for each of three seeds first

For each seed a small Pixel-BERT learns questions about figures anywhere in a picture (explanation_scenes.py,
explanation_backbone.py, explanations.yaml). Then each method's maps are measured on new scenes, on questions that the model
answers rightly, in the scene and in one where only a figure that is asked about is another, such that the answer is: so the
answer is known to come from there. What is trained and what is measured is kept in --work: the same command goes on after an
interruption, and more --questions or --seeds add to it.
"""

import argparse
import json
import math
import os
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import explanation_scenes as scenes
import numpy as np
import torch
from explanation_backbone import STRIDE, write_backbone
from explanation_measures import area, baselines, energy, hit, replaced, tells_apart
from PIL import Image, ImageDraw, ImageFont
from side_by_side import machine

import pixelbert_plugin
from pixelbert_plugin import registry
from pixelbert_plugin.errors import replacing
from pixelbert_plugin.seeding import derive

HERE = Path(__file__).parent
CONFIG = HERE / "explanations.yaml"
SIZES = {"train": 800, "val": 60}  # pictures that a model learns from, and that its checkpoint is chosen by
QUICK = {"train": 24, "val": 8}
BASELINES = ("random", "centre", "contrast")
MEASURES = {  # name: heading, whether more is better
    "hit": ("points at it ↑", True),
    "both": ("in both places ↑", True),
    "tells_apart": ("tells it apart ↑", True),
    "energy": ("energy ↑", True),
    "deletion": ("deletion ↓", False),
    "insertion": ("insertion ↑", True),
}
BEGIN, END = "<!-- benchmarks/explanations.py: begin -->", "<!-- benchmarks/explanations.py: end -->"
TILE, EDGE, LINE = 128, 6, 16  # pixels of the figure


def trained(seed: int, work: Path, sizes: dict[str, int], extra: list[str]) -> Path:
    """The folder of the run of this seed, trained if it is not yet."""
    data, run = work / f"data_{seed}", work / f"run_{seed}"
    if (run / "results.json").is_file():
        return run
    backbone = work / "resnet18.safetensors"
    if not backbone.is_file():
        share = write_backbone(backbone, *((200, 120) if sizes is SIZES else (2, 2)))
        print(f"backbone: {share:.1%} of the cells that look at a figure are named rightly", flush=True)
    scenes.write(data, seed, sizes)
    if not (data / backbone.name).is_file():
        with replacing(data / backbone.name) as aside:
            shutil.copyfile(backbone, aside)
    options = [
        f"env.data_dir={data}",
        f"env.cache_dir={work / 'cache'}",
        f"env.save_dir={run}",
        f"training.seed={seed}",
        *extra,
    ]
    if run.exists():
        options.append("checkpoint.resume=true")
    pixelbert_plugin.run(str(CONFIG), overrides=options)
    return run


def asked(seed: int, number: int) -> Iterator[tuple[int, Any, scenes.Question]]:
    """Number, scene and question: of each kind in turn, one a scene, about figures that are there."""
    for index in range(number * len(scenes.KINDS)):
        random, kind = Random(derive(seed, "graded", index)), scenes.KINDS[index % len(scenes.KINDS)]
        found: list[scenes.Question] = []
        while not found:
            scene = scenes.draw_scene(random)
            found = [question for question in scenes.questions(scene, random)[kind] if question.figures]
        yield index, scene, random.choice(found)


class Grader:
    """One model, asked and measured."""

    def __init__(self, model: pixelbert_plugin.LoadedModel, seed: int, methods: list[str]):
        self.model, self.seed, self.methods = model, seed, methods

    def probabilities(self, pictures: list[np.ndarray], text: str) -> torch.Tensor:
        """Pictures × answers."""
        with torch.no_grad():
            batch = self.model.batch([(picture, text) for picture in pictures], logits_only=True)
            return self.model.task.asked()["answer"](self.model.output(batch).logits)

    def best(self, picture: np.ndarray, text: str) -> str:
        return self.model.answer(picture, text, 1).best.text

    def row(self, index: int, scene: Any, question: scenes.Question) -> dict[str, Any]:
        """What is measured on one question; without "methods" where the model does not show that it sees the figure."""
        pixels, random = derive(self.seed, "graded pixels", index), Random(derive(self.seed, "changes", index))
        picture = np.asarray(scenes.picture(scene, pixels))
        row: dict[str, Any] = {"index": index, "kind": question.kind, "text": question.text, "answer": question.answer}
        row["right"] = self.best(picture, question.text) == question.answer
        other = scenes.changed(scene, question, random)
        if other is None:
            return row | {"follows": None}
        after = np.asarray(scenes.picture(other[0], pixels))
        row["follows"] = row["right"] and self.best(after, question.text) == other[1].answer
        if not row["follows"]:
            return row
        moved = scenes.moved(scene, question, random)
        second = None
        if moved is not None:
            second = (np.asarray(scenes.picture(moved[0], pixels)), scenes.inside(moved[0], moved[1].figures))
            if self.best(second[0], question.text) != moved[1].answer:
                second = None
        inside = scenes.inside(scene, question.figures)
        others = [scenes.inside(scene, (place,)) for place in range(len(scene.figures)) if place not in question.figures]
        ground = np.asarray(scenes.picture(scene, pixels, tuple(range(len(scene.figures)))))
        place = self.model.processors["answers"].spellings.index(question.answer)
        ends = self.probabilities([picture, ground], question.text)[:, place].tolist()
        maps = self.maps(picture, question.text, index)
        later = self.maps(second[0], question.text, index) if second is not None else {}
        row["area"], row["central"] = float(inside.mean()), bool(hit(maps["centre"], inside))
        row["methods"] = {}
        for name, values in maps.items():
            changed = self.probabilities(replaced(picture, ground, values), question.text)[:, place].tolist()
            half = len(changed) // 2
            row["methods"][name] = {
                "hit": hit(values, inside),
                "both": None if second is None else hit(values, inside) and hit(later[name], second[1]),
                "tells_apart": tells_apart(values, inside, others),
                "energy": energy(values, inside),
                "deletion": area(ends[0], changed[:half], ends[1]),
                "insertion": area(ends[1], changed[half:], ends[0]),
            }
        return row

    def maps(self, picture: np.ndarray, text: str, index: int) -> dict[str, np.ndarray]:
        found = {name: self.model.explain(picture, text, name).map for name in self.methods}
        return found | baselines(
            picture, derive(self.seed, "noise", index, picture.tobytes().hex()[:64]), scenes.SIDE // STRIDE
        )


def graded(seed: int, run: Path, work: Path, number: int, methods: list[str]) -> list[dict[str, Any]]:
    """The rows of a seed, those that are kept already read."""
    path = work / f"graded_{seed}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    with replacing(path) as aside:  # without a line that a kill has left half written
        aside.write_text("".join(line for line in lines if line.endswith("\n")), encoding="utf-8")
    grader = None
    with path.open("a", encoding="utf-8") as file:
        for index, scene, question in asked(seed, number):
            if index < len(rows):
                continue
            grader = grader or Grader(pixelbert_plugin.load(run, fast=True), seed, methods)
            rows.append(grader.row(index, scene, question))
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            print(f"seed {seed}: question {index + 1}", flush=True)
    return rows[: number * len(scenes.KINDS)]


def mean(values: list[Any]) -> float:
    known = [float(value) for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


def measured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "methods" in row]


def values(rows: list[dict[str, Any]], method: str, measure: str) -> float:
    return mean([row["methods"][method][measure] for row in measured(rows)])


def ranks(rows: list[dict[str, Any]], methods: list[str]) -> dict[str, float]:
    """Each method's mean rank over the measures, 1 the best; equal ones share theirs."""
    found = dict.fromkeys(methods, 0.0)
    for measure, (_, is_more) in MEASURES.items():
        at = {method: values(rows, method, measure) * (1 if is_more else -1) for method in methods}
        for method in methods:
            above = sum(other > at[method] for other in at.values())
            equal = sum(other == at[method] for other in at.values())
            found[method] += (above + (equal + 1) / 2) / len(MEASURES)
    return found


def table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def report(by_seed: dict[int, list[dict[str, Any]]], methods: list[str]) -> str:
    """Markdown."""
    rows = [row for found in by_seed.values() for row in found]
    seen = measured(rows)
    names = [*methods, *BASELINES]
    of_methods = ranks(rows, methods)
    best = min(of_methods, key=lambda method: of_methods[method])
    best_of_words = min(
        [name for name in methods if registry.get("explanation", name).needs_attentions] or methods,
        key=lambda method: of_methods[method],
    )
    lines = []
    for name in names:
        cells = [name if name in methods else f"*{name}*"]
        for measure in MEASURES:
            over = [values(found, name, measure) for found in by_seed.values() if measured(found)]
            text = percent(values(rows, name, measure)) if measure in ("hit", "both", "tells_apart", "energy") else ""
            text = text or f"{values(rows, name, measure):.3f}"
            if measure == "hit" and len(over) > 1:
                text += f" ({', '.join(percent(each).removesuffix(' %') for each in over)})"
            cells.append(text)
        cells.append(f"{of_methods[name]:.2f}" if name in methods else "")
        lines.append(cells)
    of_seeds = []
    for seed, found in by_seed.items():
        one = ranks(found, methods)
        of_seeds.append(f"{seed} {min(one, key=lambda method: one[method])}")
    outer = [row for row in rows if "methods" in row and not row["central"]]
    kinds = [kind for kind in scenes.KINDS if any(row["kind"] == kind for row in seen)]
    by_kind = [
        [
            name if name in methods else f"*{name}*",
            percent(values(outer, name, "hit")),
            *(percent(values([row for row in rows if row["kind"] == kind], name, "hit")) for kind in kinds),
        ]
        for name in names
    ]
    knows = [
        [
            kind,
            *(percent(mean([row["right"] for row in found if row["kind"] == kind])) for found in by_seed.values()),
            str(sum(row["kind"] == kind for row in seen)),
        ]
        for kind in scenes.KINDS
    ]
    seeds = list(by_seed)
    return "\n\n".join(
        [
            f"{len(seen)} of {len(rows)} questions are measured, of {len(seeds)} seed(s): {', '.join(map(str, seeds))}. The "
            f"figures that are asked about cover {percent(mean([row['area'] for row in seen]))} of a picture: so much energy "
            f"has an even map. ({machine()})",
            table(["method", *(heading for heading, _ in MEASURES.values()), "mean rank"], lines),
            f"**Best: `{best}`**, by the mean rank over the six measures; of those with maps of words `{best_of_words}`. By "
            f"seed: {', '.join(of_seeds)}. In brackets: by seed.",
            f"Pointing at it, where the picture's centre is not inside ({len(outer)} questions), and by kind of question:",
            table(["method", "off the centre", *kinds], by_kind),
            "What the models know: the share of such questions that each answers rightly, by seed, and how many are measured:",
            table(["kind", *(f"seed {seed}" for seed in seeds), "measured"], knows),
        ]
    )


def figure(run: Path, seed: int, rows: list[dict[str, Any]], methods: list[str], number: int) -> Image.Image:
    """The first measured question of each kind: the picture with the box of the truth, and each method's map over it."""
    model = pixelbert_plugin.load(run, fast=True)
    chosen = {row["kind"]: row["index"] for row in reversed(measured(rows))}
    found = [(scene, question, index) for index, scene, question in asked(seed, number) if index in chosen.values()]
    width = EDGE + (1 + len(methods)) * (TILE + EDGE)
    sheet = Image.new("RGB", (width, LINE + len(found) * (TILE + EDGE + LINE) + EDGE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for column, name in enumerate(["truth", *methods]):
        draw.text((EDGE + column * (TILE + EDGE), 2), name, "black", font)
    for line, (scene, question, index) in enumerate(found):
        picture = scenes.picture(scene, derive(seed, "graded pixels", index))
        top, scale = LINE + line * (TILE + EDGE + LINE), TILE / scenes.SIDE
        tiles = [picture, *(model.explain(picture, question.text, name).overlay() for name in methods)]
        for column, tile in enumerate(tiles):
            sheet.paste(tile.resize((TILE, TILE)), (EDGE + column * (TILE + EDGE), top))
        for place in question.figures:
            left, upper, side, _ = (scale * value for value in scene.figures[place].box)
            draw.rectangle((EDGE + left, top + upper, EDGE + left + side, top + upper + side), outline="black", width=2)
        draw.text((EDGE, top + TILE + 1), f"{question.text} {question.answer}", "black", font)
    return sheet


def written(text: str, path: Path) -> None:
    """Put the report between its marks in a document."""
    document = path.read_text(encoding="utf-8")
    if BEGIN not in document or END not in document:
        raise SystemExit(f"--write {path}: has no lines {BEGIN} and {END}")
    before, _, rest = document.partition(BEGIN)
    with replacing(path) as aside:
        aside.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of scenes, training and questions")
    parser.add_argument(
        "--questions", type=int, default=12, help="of each kind that are asked; those that qualify are measured"
    )
    parser.add_argument("--methods", nargs="+", default=None, help="by their registered names; without: all")
    parser.add_argument(
        "--work", type=Path, default=Path("save/explanations"), help="what is trained and measured is kept here"
    )
    parser.add_argument("--write", type=Path, default=None, help="a document that gets the tables, and beside it a picture")
    parser.add_argument("--quick", action="store_true", help="a training of seconds, which shows that the program works")
    options = parser.parse_args()
    methods = options.methods or registry.names("explanation")
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    sizes, extra = (QUICK, ["training.max_epochs=1", "run_type=train_val"]) if options.quick else (SIZES, [])
    by_seed, runs = {}, {}
    for seed in options.seeds:
        runs[seed] = trained(seed, work, sizes, extra)
        by_seed[seed] = graded(seed, runs[seed], work, options.questions, methods)
    text = report(by_seed, methods)
    print(text)
    if options.write is not None:
        first = next(iter(by_seed))
        sheet = figure(runs[first], first, by_seed[first], methods, options.questions)
        sheet.save(options.write.with_suffix(".webp"), "WEBP", quality=80)
        written(text, options.write)


if __name__ == "__main__":
    main()
