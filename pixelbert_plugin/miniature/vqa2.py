"""VQA 2.0: questions about COCO's images, with ten annotators who sometimes disagree."""

from collections import Counter
from random import Random
from typing import Any

from pixelbert_plugin.miniature.baselines import Asked, question_prior
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, Plan, as_json, generator
from pixelbert_plugin.miniature.questions import Chooser, Question, question_type
from pixelbert_plugin.miniature.scenes import COLORS, SHAPES

INFO = {
    "description": "Miniature world in the format of VQA v2.0",
    "url": "http://visualqa.org",
    "version": "2.0",
    "year": 2017,
    "contributor": "pixelbert-data make",
    "date_created": "2017-04-26 17:07:13",
}
LICENSE = {"url": "http://creativecommons.org/publicdomain/zero/1.0/", "name": "Public domain"}
SYNONYMS = {  # or what people say who are not sure
    "yes": ("yeah", "maybe"),
    "no": ("nope", "maybe"),
    "red": ("orange", "pink"),
    "green": ("lime", "teal"),
    "blue": ("navy", "teal"),
    "yellow": ("gold", "orange"),
    "purple": ("violet", "pink"),
    "white": ("gray", "silver"),
    "circle": ("disc", "ball"),
    "square": ("box", "rectangle"),
    "triangle": ("pyramid", "arrow"),
    "star": ("starfish", "asterisk"),
    "cross": ("plus", "x"),
    "ring": ("donut", "wheel"),
}
MANY = ("many", "several")  # for a number
SLIP_TO_SYNONYM = 0.75  # share of the differing answers that are another word; the others are wrong


def plan_vqa2(config: WorldConfig, plan: Plan, coco: list[Picture]) -> None:
    """Add VQA 2.0 to the plan, with the accuracy of a question-only prior as its baseline."""
    asked = {}
    for subset, parts in (("train2014", ["train"]), ("val2014", ["restval", "val", "test"]), ("test2015", ["test2015"])):
        pictures = [item for item in coco if item.part in parts]
        asked[subset] = _ask(config, plan, subset, pictures)
    plan.baselines["vqa2"] = question_prior(asked["train2014"], asked["val2014"])


def _ask(config: WorldConfig, plan: Plan, subset: str, pictures: list[Picture]) -> list[Asked]:
    random = generator(config, "vqa2", subset)
    chooser = Chooser(random)
    questions, annotations, asked = [], [], []
    for item in random.sample(pictures, len(pictures)):
        held_out = item.part in ("val", "test")
        for index, (text, question) in enumerate(chooser.choose(item.scene, config.questions_per_image, held_out=held_out)):
            identity = {"image_id": item.image_id, "question_id": item.image_id * 1000 + index}
            answers = _annotators(random, question, config.annotator_disagreement)
            questions.append({"image_id": item.image_id, "question": text, "question_id": identity["question_id"]})
            annotations.append(_annotation(identity, text, question, answers, random))
            asked.append((text, question.answer, answers))
    header = {"info": INFO, "license": LICENSE, "data_type": "mscoco"}
    subsets = {subset: questions}
    if subset == "test2015":  # test-dev is about half of its images
        dev = set(random.sample([item.image_id for item in pictures], max(1, len(pictures) // 2)))
        subsets["test-dev2015"] = [question for question in questions if question["image_id"] in dev]
    else:
        content = {**header, "data_subtype": subset, "annotations": annotations}
        plan.files[f"vqa2/v2_mscoco_{subset}_annotations.json"] = as_json(content)
    for name, part in subsets.items():
        content = {**header, "task_type": "Open-Ended", "data_subtype": name, "questions": part}
        plan.files[f"vqa2/v2_OpenEnded_mscoco_{name}_questions.json"] = as_json(content)
        plan.counts[f"vqa2 {name} questions"] = len(part)
    return asked


def _annotators(random: Random, question: Question, disagreement: float) -> list[str]:
    """Ten answers; each differs with probability `disagreement`, and the truth is always the most frequent."""
    while True:
        answers = [question.answer if random.random() >= disagreement else _slip(random, question) for _ in range(10)]
        (first, most), (_, next_most) = [*Counter(answers).most_common(2), ("", 0)][:2]
        if first == question.answer and most > next_most:
            return answers


def _slip(random: Random, question: Question) -> str:
    """Another word for the right answer, or at times a wrong answer."""
    answer = question.answer
    if random.random() < SLIP_TO_SYNONYM:
        return random.choice(SYNONYMS.get(answer, MANY))
    if question.answer_type == "yes/no":
        return {"yes": "no", "no": "yes"}[answer]
    if question.answer_type == "number":
        return str(abs(int(answer) + random.choice((-1, 1))))
    return random.choice([other for other in (COLORS if answer in COLORS else SHAPES) if other != answer])


def _annotation(identity: dict[str, int], text: str, question: Question, answers: list[str], random: Random) -> dict[str, Any]:
    return {
        "question_type": question_type(text),
        "multiple_choice_answer": question.answer,
        "answers": [
            {
                "answer": answer,
                "answer_confidence": "yes" if answer == question.answer else random.choice(("maybe", "no", "yes")),
                "answer_id": place,
            }
            for place, answer in enumerate(answers, start=1)
        ],
        "image_id": identity["image_id"],
        "answer_type": question.answer_type,
        "question_id": identity["question_id"],
    }
