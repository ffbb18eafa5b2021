"""VQA 2.0: questions about COCO's images, with ten annotators who sometimes disagree."""

from collections import Counter, defaultdict
from random import Random
from typing import Any

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
SYNONYMS = {
    "purple": ("violet", "pink"),
    "white": ("gray",),
    "yellow": ("gold",),
    "circle": ("disc", "ball"),
    "square": ("box",),
    "cross": ("plus", "x"),
    "ring": ("donut", "circle"),
}
Asked = tuple[str, str, list[str]]  # question, true answer, the ten annotators' answers


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
    """A wrong answer or another word for the right one."""
    if question.answer_type == "yes/no":
        return {"yes": "no", "no": "yes"}[question.answer]
    if question.answer_type == "number":
        return str(max(0, int(question.answer) + random.choice((-1, 1))) or int(question.answer) + 1)
    if question.answer in SYNONYMS and random.random() < 0.6:
        return random.choice(SYNONYMS[question.answer])
    return random.choice([other for other in (COLORS if question.answer in COLORS else SHAPES) if other != question.answer])


def _annotation(
    identity: dict[str, int], text: str, question: Question, answers: list[str], random: Random
) -> dict[str, Any]:
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


def question_prior(train: list[Asked], val: list[Asked]) -> dict[str, Any]:
    """VQA accuracy on val, in percent, of the answer given most often in train to the same question.

    An unseen question gets the answer most often given to its question type.
    """
    given: dict[str, Counter] = defaultdict(Counter)
    for text, truth, _ in train:
        for key in (text, question_type(text)):
            given[key][truth] += 1
    scores: dict[str, list[float]] = defaultdict(list)
    for text, truth, answers in val:
        counts = given.get(text) or given.get(question_type(text))
        score = _accuracy(counts.most_common(1)[0][0] if counts else "yes", answers)
        kind = "yes/no" if truth in ("yes", "no") else "number" if truth.isdigit() else "other"
        for key in ("overall", kind):
            scores[key].append(score)
    prior = {key: round(100 * sum(values) / len(values), 2) for key, values in sorted(scores.items())}
    truth = [_accuracy(true, answers) for _, true, answers in val]
    seen = sum(text in given for text, _, _ in val) / len(val)
    return {
        "question_only_accuracy": prior,
        "true_answer_accuracy": round(100 * sum(truth) / len(truth), 2),
        "val_questions_seen_in_train": round(100 * seen, 2),
    }


def _accuracy(answer: str, answers: list[str]) -> float:
    """VQA's accuracy for plain one-word answers: the mean of min(1, matches / 3) over the ten leave-one-out sets."""
    matches = answers.count(answer)
    return (matches * min(1, (matches - 1) / 3) + (10 - matches) * min(1, matches / 3)) / 10
