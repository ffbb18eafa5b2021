"""What a run does with its data before update 1, step by step, on generated files at full size that its cache holds already.

    python benchmarks/before_update_1.py [--beside CHECKOUT] [--rounds 3] [--scale 1.0] > benchmarks/before_update_1.txt

COCO's captions with a tenth of Visual Genome's regions, as pre-training reads them, and VQA 2.0's training questions. Every
image file is a link to one of a few. With --beside the same steps of another checkout are measured in turn, and what both
find must be equal. Times are the processor's, of whole processes; the median of the rounds. Needs 1 GB of disk.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import loading

REGIONS_SHARE = 0.1  # of Visual Genome's images
QUESTIONS = 443_757
SIZES = ((640, 480), (480, 640), (640, 427), (500, 333), (425, 640), (800, 600), (640, 640), (612, 612))
SUBJECTS = "man woman dog cat train bus table plate sign street window shirt ball player horse car".split()
FORMS = ("what color is the {} on the {}?", "is there a {} beside the {}?", "how many {}s are near the {}?", "is this {} a {}?")
STEPS = ("samples", "image sizes", "answers counted", "survey", "question priors", "image files there", "fingerprints")


def make_questions(folder: Path, num_images: int, count: int) -> None:
    """VQA 2.0's train split: a tenth of a question's ten answers are others than the most frequent one."""
    draw = random.Random(3)
    folder.mkdir(parents=True)
    answers = ["yes", "no", *map(str, range(20)), *(f"{a} {b}" for a in loading.WORDS for b in SUBJECTS for _ in range(3))]
    weights = [1 / (rank + 1) for rank in range(len(answers))]
    ids = range(1, 3 * num_images, 3)

    def records():
        for number in range(count):
            image = ids[number * len(ids) // count]
            yield image, image * 1000 + number % 1000, draw.choices(answers, weights, k=3)

    write, places = loading.write_list, list(records())
    questions = (
        {
            "image_id": image,
            "question": f"{draw.choice(FORMS).format(*draw.choices(SUBJECTS, k=2))} {loading.text(draw, draw.randrange(4))}",
            "question_id": question,
        }
        for image, question, _ in places
    )
    annotations = (
        {
            "question_id": question,
            "image_id": image,
            "question_type": "what is the",
            "answer_type": "other",
            "multiple_choice_answer": given[0],
            "answers": [
                {
                    "answer": draw.choice(given) if draw.random() < 0.3 else given[0],
                    "answer_confidence": "yes",
                    "answer_id": index,
                }
                for index in range(1, 11)
            ],
        }
        for image, question, given in places
    )
    write(folder / "v2_OpenEnded_mscoco_train2014_questions.json", questions, '{"questions": [', "]}")
    write(folder / "v2_mscoco_train2014_annotations.json", annotations, '{"annotations": [', "]}")


def make_images(root: Path, num_regions: int, num_train: int, num_val: int) -> None:
    """Every image file, a link to one of SIZES."""
    from PIL import Image

    kinds = []
    for width, height in SIZES:
        kinds.append(root / f"{width}x{height}.jpg")
        Image.new("RGB", (width, height)).save(kinds[-1])
    names = [f"visual_genome/VG_100K{'_2' * (image % 3 == 0)}/{image}.jpg" for image in range(1, num_regions + 1)]
    for year, ids in (("train2014", range(1, 3 * num_train, 3)), ("val2014", range(2, 3 * num_val, 3))):
        names += [f"coco/{year}/COCO_{year}_{image:012d}.jpg" for image in ids]
    for folder in {os.path.dirname(name) for name in names}:
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(names):
        os.symlink(kinds[number * 7 % len(kinds)], root / name)


def measure(what: str, root: Path, cache: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of each step, and a digest of what it found."""
    import yaml

    from pixelbert_plugin import registry
    from pixelbert_plugin.data.fingerprint import fingerprints
    from pixelbert_plugin.data.mixture import Mixture
    from pixelbert_plugin.data.survey import survey
    from pixelbert_plugin.data.vocabularies import fit_answers
    from pixelbert_plugin.registry import plugins
    from pixelbert_plugin.training.sanity import require_images

    plugins.load()
    builders = {}
    for name in ("vqa2",) if what == "vqa2" else ("coco", "visual_genome"):
        file = Path(__file__).parent.parent / "datasets" / name / "defaults.yaml"
        options = yaml.safe_load(file.read_text(encoding="utf-8"))["dataset_config"][name]
        if name == "visual_genome":
            options.update(exclude_coco=None, exclude_flickr30k=None)
        builders[name] = registry.build("builder", name, options, f"dataset_config.{name}", data_dir=root, cache_dir=cache)
    text = registry.build("processor", "bert_tokenizer", {}, "text")
    text.fit([" ".join([*loading.WORDS, *SUBJECTS])])
    image = registry.build("processor", "image", {}, "image")
    seconds, found = {}, {}

    def step(name, work):
        began = time.process_time()
        result = work()
        seconds[name] = time.process_time() - began
        return result

    def digest(value) -> str:
        return hashlib.blake2b(value if isinstance(value, bytes) else repr(value).encode(), digest_size=8).hexdigest()

    mixture = step("samples", lambda: Mixture.build(builders, "train"))
    sizes = step("image sizes", lambda: mixture.resized_sizes(image, cache))
    found |= {"samples": digest(mixture.images_M.tobytes()), "image sizes": digest(sizes.astype("int64").tobytes())}
    answers = None
    if what == "vqa2":
        answers = registry.build("processor", "answers", {}, "answers")
        step("answers counted", lambda: fit_answers(answers, lambda split: mixture, True))
        found["answers counted"] = digest(answers.state_dict())
        task = registry.build("task", "vqa", {}, "task_config.vqa", processors={"answers": answers})
        step("question priors", lambda: task.fit(mixture))
        shown = [mixture[row] for row in range(0, len(mixture), 97)]
        found["question priors"] = digest([(task.prior(sample), task.prefix_prior(sample)) for sample in shown])
    remarks = step("survey", lambda: [remark for part in mixture.parts.values() for remark in survey(part, text, answers)])
    step("image files there", lambda: require_images(mixture))
    prints = step("fingerprints", lambda: fingerprints({"train": mixture}))
    return seconds, found | {"survey": digest(remarks), "fingerprints": digest(prints)}


def run(checkout: Path, what: str, root: Path, cache: Path) -> tuple[dict[str, float], dict[str, str]]:
    command = [sys.executable, __file__, "--measure", what, "--folder", str(root), "--cache", str(cache)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    seconds, found = json.loads(output.splitlines()[-1])
    return seconds, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.cache)))
        return
    checkouts = [Path(__file__).parent.parent, *([options.beside.resolve()] if options.beside else [])]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder) / "data"
        regions, train, val, questions = (
            max(64, int(number * options.scale))
            for number in (loading.NUM_IMAGES * REGIONS_SHARE, loading.NUM_TRAIN, loading.NUM_VAL, QUESTIONS)
        )
        loading.make_visual_genome(root / "visual_genome", regions)
        loading.make_coco(root / "coco", train, val)
        make_questions(root / "vqa2", train, questions)
        make_images(root, regions, train, val)
        python = f"{platform.python_implementation()} {platform.python_version()}"
        print(f"{python}, {options.rounds} round(s); from the cache, files in the page cache", flush=True)
        for what, title in (
            ("pretrain", f"pre-training: {regions * loading.REGIONS:,} regions, captions of {train + val:,} images"),
            ("vqa2", f"VQA 2.0: {questions:,} questions about {train:,} images"),
        ):
            taken: list[list[dict[str, float]]] = [[] for _ in checkouts]
            results = []
            for round_ in range(options.rounds + 1):  # the first one writes the cache
                for place, checkout in enumerate(checkouts):
                    seconds, found = run(checkout, what, root, Path(folder) / f"cache{place}")
                    results.append(found)
                    taken[place] += [seconds] if round_ else []
            if any(found != results[0] for found in results):
                raise SystemExit(f"what is found differs: {results}")
            report(title, taken)


def report(title: str, taken: list[list[dict[str, float]]]) -> None:
    has_former = len(taken) > 1
    print(f"\n{title:<76}{'now':>10}" + (f"{'beside':>10}{'now / beside':>14}" if has_former else ""))
    totals = [statistics.median(sum(seconds.values()) for seconds in each) for each in taken]
    rows = {name: [statistics.median(s[name] for s in each) for each in taken] for name in STEPS if name in taken[0][0]}
    for name, figures in [*rows.items(), ("all of it", totals)]:
        line = f"{name:<76}" + "".join(f"{figure:>8.2f} s" for figure in figures)
        print(line + (f"{figures[0] / figures[1]:>14.2f}" if has_former else ""), flush=True)


if __name__ == "__main__":
    main()
