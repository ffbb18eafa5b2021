"""The miniature world against its own truth: texts are parsed here and answered anew from the objects of each image."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelbert_plugin.commands import data as data_cli
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.metrics.vqa import vqa_accuracy
from pixelbert_plugin.miniature import world as world_module
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.world import make_plan, write_world
from pixelbert_plugin.registry.schema import ConfigError, merge

SHAPES = "circle square triangle star cross ring".split()
RGB = dict(red=(215, 35, 35), green=(30, 165, 55), blue=(35, 70, 220), yellow=(240, 215, 40))
RGB |= dict(purple=(165, 50, 195), white=(242, 242, 242))
HELD_OUT = {"yellow circle", "blue star", "red cross", "green ring"}
NUMBERS = {word: number for number, word in enumerate("no one two three four".split())}
SMALL = dict(
    coco_train_images=24,
    coco_restval_images=6,
    coco_val_images=8,
    coco_test_images=8,
    coco_test2015_images=4,
    vg_images=30,
    vg_coco_images=16,
    vg_flickr_images=3,
    flickr_train_images=6,
    flickr_val_images=4,
    flickr_test_images=4,
    nlvr2_train_sets=10,
    nlvr2_dev_sets=10,
    nlvr2_test1_sets=10,
    nlvr2_test2_sets=10,
    backbone_updates=0,
)
MIDDLE = {name: 15 * number for name, number in SMALL.items()}  # planned, not drawn


class World:
    """A world's text files, drawn or only planned, and the truth about its images by path."""

    def __init__(self, texts: dict[str, str], truth: list[str]):
        self.texts = texts
        self.truth = {item["path"]: item for item in map(json.loads, truth)}

    def json(self, path: str):
        return json.loads(self.texts[path])

    def lines(self, path: str) -> list[dict]:
        return [json.loads(line) for line in self.texts[path].splitlines()]

    def objects(self, path: str) -> list[dict]:
        return self.truth[path]["objects"]


@pytest.fixture(scope="module")
def planned() -> World:
    plan = make_plan(WorldConfig(out="unused", **MIDDLE))
    return World(plan.files, [world_module._truth(item) for item in plan.pictures])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, World]:
    out = tmp_path_factory.mktemp("world") / "one"
    write_world(WorldConfig(out=str(out), processes=1, **SMALL))
    texts = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.json")}
    return out, World(texts, (out / "miniature_scenes.jsonl").read_text().splitlines())


# --- reading the texts, without the code that wrote them


def fits(item: dict, words: str) -> bool:
    """Whether an object is what a name such as "big red circle", "small object" or "rings" says."""
    words = words.replace("big", "large").replace("little", "small").replace("crosses", "cross")
    kinds = {item["shape"], f"{item['shape']}s", item["color"], item["size"], "object", "objects"}
    return set(words.split()) <= kinds


def only(objects: list[dict], words: str) -> dict:
    """The object of that name; there must be exactly one."""
    (found,) = [item for item in objects if fits(item, words)]
    return found


def lies(one: dict, relation: str, other: dict) -> bool:
    (x, y), (other_x, other_y) = one["center"], other["center"]
    relation = relation.replace("to the ", "").replace("over", "above").replace("under", "below")
    holds = {"left of": other_x - x, "right of": x - other_x, "above": other_y - y, "below": y - other_y}
    return holds[relation] > 12


THING = (
    r"((?:(?:big|large|small|little) )?(?:(?:red|green|blue|yellow|purple|white) )?"
    r"(?:circle|square|triangle|star|cross|ring|object))"
)
RELATION = r"((?:to the )?(?:left|right) of|above|over|below|under)"
SIDES = {"on its left": "left of", "on its right": "right of", "above it": "above", "below it": "below"}


def caption_holds(text: str, objects: list[dict]) -> bool:
    """Whether a caption is true of the objects and names at least two of them (or the only one)."""
    text = text.lower().rstrip(".").replace("single ", "")
    asked = None
    if found := re.search(rf"a {THING} (?:is )?{RELATION} (?:a|another) {THING}$", text):
        asked = found.groups()
    elif found := re.search(rf"a {THING} with (?:a|another) {THING} (.*)$", text):
        asked = found[2], SIDES[found[3]], found[1]
    elif found := re.search(rf"^{RELATION} a {THING} there is (?:a|another) {THING}$", text):
        asked = found[3], found[1], found[2]
    if asked:
        one, relation, other = asked
        pairs = [(a, b) for a in objects for b in objects if a is not b and fits(a, one) and fits(b, other)]
        return any(lies(a, relation, b) for a, b in pairs)
    left = list(objects)  # a listing: every item takes its objects, and none is left
    items = re.sub(r"^.* of |^.*shows ", "", text)
    for number, words in re.findall(r"\b(a|two|three|four) (\w+ (?:\w+ )?\w+)(?=,| and |$)", items):
        for _ in range(NUMBERS.get(number, 1)):
            chosen = next((item for item in left if fits(item, words)), None)
            if chosen is None:
                return False
            left.remove(chosen)
    if found := re.search(r"(one|two|three|four) objects?", text):
        return not left and NUMBERS[found[1]] == len(objects)
    return not left


def answer_to(question: str, objects: list[dict]) -> str:
    """The answer to a question of VQA, from the objects."""
    text = question.lower().rstrip("?").replace("larger", "bigger").replace(" in the picture", "")

    def number(words: str) -> int:
        return sum(fits(item, words) for item in objects)

    if found := re.fullmatch(r"how many (.*?) (?:are there|do you see|are)", text):
        return str(number(found[1]))
    if found := re.fullmatch(rf"(?:is there|do you see) a {THING}", text):
        result = number(found[1]) > 0
    elif found := re.fullmatch(r"are there more (\w+) than (\w+)", text):
        result = number(found[1]) > number(found[2])
    elif found := re.fullmatch(rf"is the {THING} {RELATION} the {THING}", text):
        result = lies(only(objects, found[1]), found[2], only(objects, found[3]))
    elif found := re.fullmatch(rf"is the {THING} bigger than the {THING}", text):
        result = only(objects, found[1])["box"][2] > only(objects, found[2])["box"][2]
    elif found := re.fullmatch(rf"is the {THING} (\w+)", text):
        result = only(objects, found[1])["color"] == found[2]
    elif found := re.fullmatch(rf"(?:are|do) the {THING} and the {THING} (?:have )?the same color", text):
        result = only(objects, found[1])["color"] == only(objects, found[2])["color"]
    elif found := re.fullmatch(rf"which is bigger, the {THING} or the {THING}", text):
        return max((only(objects, name) for name in found.groups()), key=lambda item: item["box"][2])["shape"]
    elif found := re.fullmatch(rf"what color is the object {RELATION} the {THING}", text):
        return there(objects, found[1], found[2])["color"]
    elif found := re.fullmatch(rf"(?:what is|what shape is|which object is) {RELATION} the {THING}", text):
        return there(objects, found[1], found[2])["shape"]
    elif found := re.fullmatch(rf"what (?:color is|is the color of) the {THING}", text):
        return only(objects, found[1])["color"]
    elif found := re.fullmatch(rf"what (?:shape is|is|is the shape of) the {THING}", text):
        return only(objects, found[1])["shape"]
    else:
        raise AssertionError(f"not understood: {question}")
    return "yes" if result else "no"


def there(objects: list[dict], relation: str, words: str) -> dict:
    reference = only(objects, words)
    (found,) = [item for item in objects if item is not reference and lies(item, relation, reference)]
    return found


def statement_holds(sentence: str, left: list[dict], right: list[dict]) -> bool:
    """Whether a statement of NLVR2 is true of the two images' objects."""
    text = sentence.lower().rstrip(".")
    words = re.search(THING.replace("cross|", "crosses|cross|") + r"s?\b", text)[0]
    one, other = ([item for item in objects if fits(item, words)] for objects in (left, right))
    if "same color" in text:
        return only(left, words)["color"] == only(right, words)["color"]
    if "same number" in text or "as many" in text or "number of" in text:
        return len(one) == len(other)
    if "total" in text or "altogether" in text:
        return len(one) + len(other) == NUMBERS[re.search(r"exactly (\w+)", text)[1]]
    if "either both" in text or "both images or in neither" in text or "in both images or in" in text:
        return bool(one) == bool(other)
    if re.match(r"neither|no |there is no ", text):
        return not one and not other
    if "at least one" in text or text.startswith("one or both"):
        return bool(one or other)
    if "exactly one" in text or "only one" in text or "the other does not" in text or "but not in the other" in text:
        return bool(one) != bool(other)
    assert "both" in text or "each" in text, text
    return bool(one) and bool(other)


# --- truth of the texts


def karpathy(world: World, name: str):
    """(path, split, captions) of every image of a Karpathy file."""
    for image in world.json(f"{name}/dataset_{name}.json")["images"]:
        folder = image.get("filepath", "flickr30k-images")
        yield f"{name}/{folder}/{image['filename']}", image["split"], [item["raw"] for item in image["sentences"]]


def images_of(world: World, path: str) -> tuple[list, list]:
    """The objects of the left and right image of an example's first path part."""
    return world.objects(f"{path}-img0.png"), world.objects(f"{path}-img1.png")


def examples(world: World, split: str):
    """(example, objects on the left, objects on the right) of an NLVR2 split."""
    for example in world.lines(f"nlvr2/data/{split}.json"):
        folder = f"nlvr2/images/{split}/{example['directory']}" if split == "train" else f"nlvr2/images/{split}"
        yield example, *images_of(world, f"{folder}/{example['identifier'].rpartition('-')[0]}")


def asked(world: World, subset: str):
    """(question, annotation, objects of its image) of a VQA subset."""
    questions = world.json(f"vqa2/v2_OpenEnded_mscoco_{subset}_questions.json")["questions"]
    annotations = world.json(f"vqa2/v2_mscoco_{subset}_annotations.json")["annotations"]
    for question, annotation in zip(questions, annotations, strict=True):
        assert question["question_id"] == annotation["question_id"]
        path = f"coco/{subset}/COCO_{subset}_{question['image_id']:012d}.jpg"
        yield question["question"], annotation, world.objects(path)


@pytest.mark.parametrize("name", ["coco", "flickr30k"])
def test_captions_are_true_and_name_two_objects(planned, name):
    seen = 0
    for path, _, texts in karpathy(planned, name):
        assert len({text.lower().rstrip(".") for text in texts}) == 5
        for text in texts:
            assert caption_holds(text, planned.objects(path)), (text, planned.objects(path))
            seen += 1
    assert seen == 5 * 15 * (46 if name == "coco" else 14)


def test_the_reading_of_captions_can_fail(planned):
    """A caption of one image is mostly false of another."""
    items = list(karpathy(planned, "coco"))
    wrong = [caption_holds(text, planned.objects(items[index - 1][0])) for index, item in enumerate(items) for text in item[2]]
    assert sum(wrong) < 0.1 * len(wrong)


def test_vocabulary_is_small(planned):
    words = {
        word for _, _, texts in karpathy(planned, "coco") for text in texts for word in re.findall(r"[a-z]+", text.lower())
    }
    assert 40 < len(words) < 80


@pytest.mark.parametrize("subset", ["train2014", "val2014"])
def test_answers_are_the_truth(planned, subset):
    for question, annotation, objects in asked(planned, subset):
        assert annotation["multiple_choice_answer"] == answer_to(question, objects), (question, objects)


def test_annotators_sometimes_disagree_but_the_truth_is_the_most_frequent(planned):
    differing = total = 0
    for _, annotation, _ in asked(planned, "train2014"):
        answers = [item["answer"] for item in annotation["answers"]]
        truth = annotation["multiple_choice_answer"]
        (first, most), *others = Counter(answers).most_common()
        assert first == truth and all(number < most for _, number in others) and len(answers) == 10
        assert [item["answer_id"] for item in annotation["answers"]] == list(range(1, 11))
        differing += 10 - answers.count(truth)
        total += 10
    assert 0.10 < differing / total < 0.14


def test_answers_are_balanced(planned):
    by_type = defaultdict(Counter)
    for question, annotation, _ in asked(planned, "train2014"):
        start = " ".join(question.split()[:2]) if annotation["answer_type"] == "yes/no" else annotation["answer_type"]
        by_type[start][annotation["multiple_choice_answer"]] += 1
    for start in ("Is there", "Is the", "Are there", "Are the"):
        yes, no = by_type[start]["yes"], by_type[start]["no"]
        assert abs(yes - no) <= max(6, 0.15 * (yes + no)), start
    numbers = by_type["number"]
    assert max(numbers.values()) < 0.4 * numbers.total() and {"0", "1", "2", "3"} <= set(numbers)
    for kind in (SHAPES, list(RGB)):
        counts = [by_type["other"][answer] for answer in kind]
        assert max(counts) < 1.5 * min(counts)


@pytest.mark.parametrize("split", ["train", "dev", "test1", "test2"])
def test_labels_are_the_truth(planned, split):
    for example, left, right in examples(planned, split):
        assert example["label"] == str(statement_holds(example["sentence"], left, right)), (example, left, right)


@pytest.mark.parametrize("split", ["train", "dev", "test1", "test2"])
def test_every_statement_is_true_of_two_pairs_and_false_of_two(planned, split):
    labels = defaultdict(list)
    for example, _, _ in examples(planned, split):
        _, number, _, sentence_number = example["identifier"].split("-")
        labels[number, sentence_number, example["sentence"]].append(example["label"])
    assert all(sorted(found) == ["False", "False", "True", "True"] for found in labels.values())
    assert len({number for number, _, _ in labels}) == 150
    assert any(sentence_number == "1" for _, sentence_number, _ in labels)


def test_visual_genomes_answers_are_true_and_written_its_way(planned):
    """In the official layout, one entry an image in the order of image_data; an answer's last word is the truth."""
    images, entries = (planned.json(f"visual_genome/{name}.json") for name in ("image_data", "question_answers"))
    assert [entry["id"] for entry in entries] == [image["image_id"] for image in images]
    pairs = [(pair, image) for entry, image in zip(entries, images, strict=True) for pair in entry["qas"]]
    assert [pair["qa_id"] for pair, _ in pairs] == list(range(1, len(pairs) + 1))
    forms = Counter()
    for pair, image in pairs:
        assert set(pair) == {"a_objects", "answer", "image_id", "q_objects", "qa_id", "question"}
        assert pair["image_id"] == image["image_id"] and pair["question"].startswith(("What ", "How ")), pair
        objects = planned.objects(f"visual_genome/{image['url'].split('/')[-2]}/{image['image_id']}.jpg")
        answer = pair["answer"]
        assert answer[0] == answer[0].upper() and answer[-1] == "." and answer[:-1].lower() == answer.lower()[:-1]
        *before, word = answer[:-1].lower().split()
        assert answer_to(pair["question"], objects) == str(NUMBERS.get(word, word)), (pair, objects)
        forms[" ".join(before)] += 1
    assert set(forms) == {"", "a", "it is", "it is a", "there are", "there is"} and forms[""] > forms["a"] > forms["it is"] > 0
    assert sum(number for form, number in forms.items() if " " in form) == pytest.approx(0.15 * len(pairs), rel=0.3)


def test_region_phrases_are_true_of_their_box(planned):
    folders = {item["image_id"]: item["url"].split("/")[-2] for item in planned.json("visual_genome/image_data.json")}
    relations = 0
    for image in planned.json("visual_genome/region_descriptions.json"):
        objects = planned.objects(f"visual_genome/{folders[image['id']]}/{image['id']}.jpg")
        assert 4 <= len({region["phrase"] for region in image["regions"]}) == len(image["regions"]) <= 8
        for region in image["regions"]:
            box = [region[name] for name in ("x", "y", "width", "height")]
            text = re.sub(r"(?<!to )\b(the|a) ", "", region["phrase"])
            if found := re.fullmatch(rf"{THING} {RELATION} {THING}", text):
                pairs = [(one, other) for one in objects for other in objects if fits(one, found[1]) and fits(other, found[3])]
                assert any(lies(one, found[2], other) and around(one, other) == box for one, other in pairs), (region, objects)
                relations += 1
            else:
                words = text.replace("that is ", "")
                assert any(fits(item, words) and item["box"] == box for item in objects), (region, objects)
    assert relations > 100


def around(one: dict, other: dict) -> list[int]:
    boxes = np.array([one["box"], other["box"]])
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    return [left, top, right - left, bottom - top]


# --- splits and held-out combinations


def pairs_in(objects: list[dict]) -> set[str]:
    return {f"{item['color']} {item['shape']}" for item in objects}


def test_held_out_combinations_are_in_no_training_image_or_text(planned):
    trained = {"coco": ("train", "restval"), "flickr30k": ("train", "val", "test")}
    texts = [
        text for name in trained for _, split, lines in karpathy(planned, name) if split in trained[name] for text in lines
    ]
    texts += [item["question"] for item in planned.json("vqa2/v2_OpenEnded_mscoco_train2014_questions.json")["questions"]]
    for split in ("train", "dev", "test1"):
        texts += [example["sentence"] for example in planned.lines(f"nlvr2/data/{split}.json")]
    pattern = re.compile("|".join(pair.replace(" ", " (?:object )?") for pair in HELD_OUT))
    assert len(texts) > 5000 and not [text for text in texts if pattern.search(text.lower())]
    shared = Counter()
    for path, item in planned.truth.items():
        data_set = path.split("/")[0]
        shared[data_set, item["part"]] += bool(pairs_in(item["objects"]) & HELD_OUT)
    assert {key for key, number in shared.items() if number} == {
        ("coco", "val"),
        ("coco", "test"),
        ("visual_genome", "leaked"),
        ("nlvr2", "test2"),
    }
    assert shared["coco", "val"] == shared["coco", "test"] == 30  # a quarter of 120
    assert 0.2 < shared["nlvr2", "test2"] / (150 * 8) < 0.5


def test_the_splits_share_no_scene(planned):
    splits = {"train": "train", "restval": "train", "val": "val", "dev": "val", "test": "test"}
    splits |= {"test1": "test", "test2": "test", "test2015": "test"}
    found = defaultdict(set)
    for item in planned.truth.values():
        if item["part"] != "leaked":
            objects = sorted((one["shape"], one["color"], one["size"], *one["cell"]) for one in item["objects"])
            found[splits[item["part"]]].add((*item["grid"], *objects))
    assert all(len(scenes) > 100 for scenes in found.values())
    assert not any(found[one] & found[other] for one, other in combinations(found, 2))


def test_retrieval_images_differ_in_their_objects(planned):
    for name, part in (("coco", "val"), ("coco", "test"), ("flickr30k", "val"), ("flickr30k", "test")):
        scenes = [item["objects"] for path, item in planned.truth.items() if path.startswith(name) and item["part"] == part]
        keys = {tuple(sorted((item["color"], item["shape"]) for item in objects)) for objects in scenes}
        assert len(keys) == len(scenes) > 50


def test_visual_genome_shares_images_with_the_others(drawn):
    """coco_id and flickr_id name images with the very same bytes; those that COCO or Flickr30K judges by are among them."""
    out, world = drawn
    by_id = {f"{path.split('/')[0]} {int(re.findall('[0-9]+', path)[-1])}": path for path in world.truth if "jpg" in path}
    parts = Counter()
    for image in world.json("visual_genome/image_data.json"):
        own = out / "visual_genome" / image["url"].split("/")[-2] / f"{image['image_id']}.jpg"
        for name, key in (("coco", "coco_id"), ("flickr30k", "flickr_id")):
            if image[key] is not None:
                other = by_id[f"{name} {image[key]}"]
                assert own.read_bytes() == (out / other).read_bytes()
                parts[name, world.truth[other]["part"]] += 1
    assert sum(number for (name, _), number in parts.items() if name == "coco") == SMALL["vg_coco_images"]
    assert parts["coco", "val"] + parts["coco", "test"] == 5  # three tenths of 16
    assert parts["flickr30k", "val"] + parts["flickr30k", "test"] == SMALL["vg_flickr_images"]


# --- formats


def test_the_official_keys(drawn):
    _, world = drawn
    for year in ("train2014", "val2014"):
        official = world.json(f"coco/annotations/captions_{year}.json")
        assert set(official) == {"info", "images", "licenses", "annotations"}
        keys = {"id", "file_name", "height", "width", "license", "coco_url", "date_captured", "flickr_url"}
        assert set(official["images"][0]) == keys
        assert set(official["annotations"][0]) == {"id", "image_id", "caption"}
        assert Counter(item["image_id"] for item in official["annotations"]) == {item["id"]: 5 for item in official["images"]}
        annotations = world.json(f"vqa2/v2_mscoco_{year}_annotations.json")
        assert set(annotations) == {"info", "license", "data_type", "data_subtype", "annotations"}
        keys = {"question_id", "image_id", "question_type", "answer_type", "multiple_choice_answer", "answers"}
        assert set(annotations["annotations"][0]) == keys
        assert set(annotations["annotations"][0]["answers"][0]) == {"answer", "answer_confidence", "answer_id"}
    subsets = {}
    for subset in ("train2014", "val2014", "test2015", "test-dev2015"):
        official = world.json(f"vqa2/v2_OpenEnded_mscoco_{subset}_questions.json")
        assert set(official) == {"info", "license", "data_type", "data_subtype", "task_type", "questions"}
        assert official["data_subtype"] == subset
        assert set(official["questions"][0]) == {"question_id", "image_id", "question"}
        subsets[subset] = {item["question_id"] for item in official["questions"]}
    assert subsets["test-dev2015"] < subsets["test2015"]
    (regions, *_), (image, *_) = (world.json(f"visual_genome/{name}.json") for name in ("region_descriptions", "image_data"))
    assert set(regions) == {"id", "regions"}
    assert set(regions["regions"][0]) == {"region_id", "image_id", "phrase", "x", "y", "width", "height"}
    assert set(image) == {"image_id", "url", "width", "height", "coco_id", "flickr_id"}


def test_karpathy_and_official_captions_agree(drawn):
    _, world = drawn
    official = {}
    for year in ("train2014", "val2014"):
        for item in world.json(f"coco/annotations/captions_{year}.json")["annotations"]:
            official[item["id"]] = item["image_id"], item["caption"]
    images = world.json("coco/dataset_coco.json")["images"]
    for image in images:
        assert [item["sentid"] for item in image["sentences"]] == image["sentids"]
        for item in image["sentences"]:
            assert official.pop(item["sentid"]) == (image["cocoid"], item["raw"])
            assert " ".join(item["tokens"]) == item["raw"].lower().rstrip(".").replace(",", "")
            assert item["imgid"] == image["imgid"]
    assert not official
    assert Counter(image["split"] for image in images) == {"train": 24, "restval": 6, "val": 8, "test": 8}


def test_nlvr2_lines(drawn):
    _, world = drawn
    keys = {"sentence", "left_url", "right_url", "label", "identifier", "validation", "writer", "synset", "query"}
    for split in ("train", "dev", "test1", "test2"):
        for example, _, _ in examples(world, split):
            assert set(example) == keys | {"directory" if split == "train" else "extra_validations"}
    for split in ("dev", "test1"):
        parts = [world.lines(f"nlvr2/data/{kind}/{kind}_{split}.json") for kind in ("balanced", "unbalanced")]
        names = [item["identifier"] for part in parts for item in part]
        assert sorted(names) == sorted(item["identifier"] for item in world.lines(f"nlvr2/data/{split}.json"))


def test_every_image_shows_its_objects(drawn):
    """The colour at an object's middle is nearest to its own; boxes lie in the image and apart; sizes are as recorded."""
    out, world = drawn
    formats = Counter()
    for path, item in world.truth.items():
        with Image.open(out / path) as image:
            assert image.size == (item["width"], item["height"]), path
            formats[path.rpartition(".")[2], image.format, image.mode] += 1
            pixels_HW3 = np.asarray(image.convert("RGB"), dtype=float)
        for one, other in combinations(item["objects"], 2):
            (x, y, side, _), (other_x, other_y, other_side, _) = one["box"], other["box"]
            apart = x + side <= other_x or other_x + other_side <= x or y + side <= other_y or other_y + other_side <= y
            assert apart, path
        for one in item["objects"]:
            x, y, side, _ = one["box"]
            assert x >= 0 and y >= 0 and x + side <= item["width"] and y + side <= item["height"], path
            middle_x, middle_y = one["center"]
            if one["shape"] == "ring":
                middle_x -= round(0.39 * side)  # the middle of the rim
            color = pixels_HW3[middle_y - 1 : middle_y + 2, middle_x - 1 : middle_x + 2].mean(axis=(0, 1))
            nearest = min(RGB, key=lambda name: ((color / color.max() - np.array(RGB[name]) / max(RGB[name])) ** 2).sum())
            assert nearest == one["color"], (path, one, color)
    assert {key[1:] for key in formats if key[0] == "jpg"} == {("JPEG", "RGB")}
    assert {key[1:] for key in formats if key[0] == "png"} == {("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "RGBA")}


# --- baselines


def test_the_question_prior_is_what_it_says(drawn):
    """Computed anew with the package's official metric."""
    out, world = drawn
    given = defaultdict(Counter)
    for question, annotation, _ in asked(world, "train2014"):
        for key in (question, annotation["question_type"]):
            given[key][annotation["multiple_choice_answer"]] += 1
    scores = []
    for question, annotation, _ in asked(world, "val2014"):
        counts = given.get(question) or given.get(annotation["question_type"])
        answers = tuple(item["answer"] for item in annotation["answers"])
        scores.append(vqa_accuracy(counts.most_common(1)[0][0] if counts else "yes", answers))
    summary = json.loads((out / "miniature.json").read_text())
    assert summary["baselines"]["vqa2"]["question_only_accuracy"]["overall"] == round(100 * sum(scores) / len(scores), 2)


@pytest.mark.slow
def test_a_statement_or_one_image_tells_next_to_nothing():
    plan = make_plan(WorldConfig(out="unused", **SMALL | {"nlvr2_train_sets": 300, "nlvr2_test1_sets": 100}))
    baselines = plan.baselines["nlvr2"]
    assert set(baselines["statement_only_accuracy"].values()) == {50.0}
    assert max(baselines["single_image_accuracy"].values()) <= 60


# --- the command


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_same_seed_same_bytes_with_any_number_of_processes(drawn, tmp_path):
    out, _ = drawn
    write_world(WorldConfig(out=str(tmp_path / "two"), processes=2, **SMALL))
    assert contents(tmp_path / "two") == contents(out)
    files = (out / "miniature_files.txt").read_text().splitlines()
    assert set(contents(out)) == {*files, "miniature_files.txt", "miniature.json"}
    other = make_plan(WorldConfig(out="unused", seed=2, **SMALL))
    assert other.files["flickr30k/dataset_flickr30k.json"] != (out / "flickr30k/dataset_flickr30k.json").read_text()


def test_a_process_that_cannot_begin_is_told_and_not_started_for_ever(tmp_path):
    """A program that is read from standard input has no file that other processes could begin with."""
    program = (
        "from pixelbert_plugin.miniature.world import WorldConfig, write_world\n"
        f"write_world(WorldConfig(out={str(tmp_path / 'mini')!r}, processes=2, **{SMALL!r}))\n"
    )
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "UserError: processes=2: a process that draws ended; processes=1" in done.stderr


def arguments(out: Path, **options) -> list[str]:
    return ["make", f"out={out}", "processes=1", *(f"{key}={value}" for key, value in (SMALL | options).items())]


@pytest.mark.slow
def test_a_whole_world_is_replaced_only_if_asked(tmp_path, capsys):
    out = tmp_path / "world"
    assert data_cli.main(arguments(out)) == 0
    assert "nlvr2 train images: 80" in capsys.readouterr().out
    first = contents(out)
    assert data_cli.main(arguments(out, seed=2)) == 2
    assert "overwrite=true" in capsys.readouterr().err and contents(out) == first
    (out / "coco/notes.txt").write_text("mine")
    assert data_cli.main(arguments(out, seed=2, overwrite="true")) == 0
    second = contents(out)
    assert second.pop("coco/notes.txt") == b"mine" and set(first) - set(second)
    assert set(second) == {*second["miniature_files.txt"].decode().split(), "miniature_files.txt", "miniature.json"}


def test_foreign_files_are_kept(tmp_path, capsys):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/dataset_coco.json").write_text("real")
    assert data_cli.main(arguments(tmp_path)) == 2
    assert "is not empty" in capsys.readouterr().err
    assert data_cli.main(arguments(tmp_path, overwrite="true")) == 2
    assert "coco/dataset_coco.json is there and was not made by this command" in capsys.readouterr().err
    assert contents(tmp_path) == {"coco/dataset_coco.json": b"real"}


def test_a_refused_make_leaves_the_world_there_whole(tmp_path, capsys):
    out = tmp_path / "world"
    write_world(WorldConfig(out=str(out), processes=1, **SMALL))
    other = next(iter(make_plan(WorldConfig(out="unused", seed=2, **SMALL)).pictures)).path
    (out / other).write_text("mine")
    before = contents(out)
    assert data_cli.main(arguments(out, seed=2, overwrite="true")) == 2
    assert other in capsys.readouterr().err and contents(out) == before


def test_a_kill_leaves_no_whole_world_and_the_next_make_starts_anew(drawn, tmp_path):
    out = tmp_path / "world"
    command = [sys.executable, "-m", "pixelbert_plugin.commands.data", *arguments(out, coco_train_images=400)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(2400):  # a busy machine takes its time
        if len(list(out.glob("coco/train2014/*"))) > 20:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (out / "miniature_files.txt").exists() and not (out / "miniature.json").exists()
    write_world(WorldConfig(out=str(out), processes=1, **SMALL))
    assert contents(out) == contents(drawn[0])


@pytest.mark.parametrize(
    "options, message",
    [
        (["seed=1"], "out: '' is invalid: names no folder"),
        (["out=x", "sead=1"], "sead: unknown key; did you mean seed?"),
        (["out=x", "coco_val_images=many"], "coco_val_images: 'many' is invalid"),
        (["out=x", "coco_val_images=0"], "coco_val_images: 0 is invalid: must be at least 1"),
        (["out=x", "vg_images=100"], "vg_images: 100 is invalid: fewer than vg_coco_images"),
        (["out=x", "vg_coco_images=6000", "vg_images=7000"], "vg_coco_images: 6000 is invalid: COCO has only 5900"),
        (["out=x", "seed"], "'seed': not understood; options are given as key=value"),
    ],
)
def test_wrong_options_are_named(options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert data_cli.main(["make", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_world(merge(WorldConfig, {"out": str(tmp_path / "file" / "world"), **SMALL}))


def test_unknown_types_are_config_errors():
    with pytest.raises(ConfigError, match="held_out_share"):
        merge(WorldConfig, {"out": "x", "held_out_share": 2})


def test_help_is_quick():
    """Neither torch nor numpy is imported for it."""
    code = "import sys, pixelbert_plugin.commands.data; print({'torch', 'numpy', 'PIL', 'omegaconf'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
