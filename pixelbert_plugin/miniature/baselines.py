"""What guesses without looking are worth: measured on the world itself, so that a model's figures can be judged."""

from collections import Counter, defaultdict
from typing import Any

from pixelbert_plugin.miniature.questions import question_type
from pixelbert_plugin.miniature.statements import StatementSet, Value

Told = tuple[str, int, Value]  # a statement's type and target, and what one image tells of it
Asked = tuple[str, str, list[str]]  # a question of VQA, its true answer, the ten annotators' answers


def question_prior(train: list[Asked], val: list[Asked]) -> dict[str, Any]:
    """VQA accuracy on val, in percent, of the answer given most often in train to the same question.

    An unseen question gets the answer most often given to its question type.
    """
    given: dict[str, Counter[str]] = defaultdict(Counter)
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
    of_truth = [_accuracy(truth, answers) for _, truth, answers in val]
    seen = sum(text in given for text, _, _ in val) / len(val)
    return {
        "question_only_accuracy": prior,
        "true_answer_accuracy": round(100 * sum(of_truth) / len(of_truth), 2),
        "val_questions_seen_in_train": round(100 * seen, 2),
    }


def _accuracy(answer: str, answers: list[str]) -> float:
    """VQA's accuracy for plain one-word answers: the mean of min(1, matches / 3) over the ten leave-one-out sets."""
    matches = answers.count(answer)
    return (matches * min(1, (matches - 1) / 3) + (10 - matches) * min(1, matches / 3)) / 10


def _examples(sets: list[StatementSet]) -> list[tuple[str, str, tuple[Told, Told], bool]]:
    """(type, sentence, what the left and the right image tell, label) of every example."""
    return [
        (
            item.type,
            item.sentence,
            ((item.type, item.target, values[0]), (item.type, item.target, values[1])),
            label,
        )
        for made in sets
        for item in made.statements
        for values, label in zip(item.values, item.labels, strict=True)
    ]


def statement_only(train: list[StatementSet], test: list[StatementSet]) -> dict[str, float]:
    """Accuracy in percent of the label that the sentence (else its type) had most often in train."""
    votes: dict[str, Counter[bool]] = defaultdict(Counter)
    for kind, sentence, _, label in _examples(train):
        votes[sentence][label] += 1
        votes[kind][label] += 1
    right: dict[str, list[bool]] = defaultdict(list)
    for kind, sentence, _, label in _examples(test):
        guess = _majority(votes.get(sentence) or votes[kind])
        right["overall"].append(guess == label)
        right[kind].append(guess == label)
    return {key: _percent(values) for key, values in right.items()}


def single_image(train: list[StatementSet], test: list[StatementSet]) -> dict[str, float]:
    """Accuracy in percent of the best guess from the statement and the truth about one image, the left or the right."""
    right: dict[str, list[bool]] = defaultdict(list)
    for side, name in enumerate(("left", "right")):
        votes: dict[Told, Counter[bool]] = defaultdict(Counter)
        for _, _, told, label in _examples(train):
            votes[told[side]][label] += 1
        for _, _, told, label in _examples(test):
            right[name].append(_majority(votes[told[side]]) == label)
    return {key: _percent(values) for key, values in right.items()}


def _majority(votes: Counter[bool]) -> bool:
    return votes[True] >= votes[False]


def _percent(values: list[bool]) -> float:
    return round(100 * sum(values) / len(values), 2)
