"""Visual Genome's question-answer pairs: one answer each, written as its annotators write: `Blue.`, `It is blue.`"""

from random import Random
from typing import Any

from pixelbert_plugin.miniature.language import NUMBERS
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, Plan, as_json, generator
from pixelbert_plugin.miniature.questions import Question, questions

PATH = "visual_genome/question_answers.json"
STARTS = ("What", "How")  # of the six words that its annotators begin with, those that can be asked about a scene
SENTENCES = 0.15  # share of answers that are sentences, which VQA's vocabulary lacks


def plan_visual_genome_qa(config: WorldConfig, plan: Plan, pictures: list[Picture]) -> None:
    """Add the pairs about Visual Genome's pictures to the plan: as many of an image as VQA has, their answers unbalanced."""
    random = generator(config, "visual genome question answers")
    entries, qa_id = [], 0
    for item in pictures:
        asked = [question for question in questions(item.scene, held_out=False) if _wordings(question)]
        chosen = random.sample(asked, min(config.questions_per_image, len(asked)))
        pairs = [_pair(item.image_id, qa_id + number, question, random) for number, question in enumerate(chosen, start=1)]
        entries.append({"id": item.image_id, "qas": pairs})
        qa_id += len(pairs)
    plan.files[PATH] = as_json(entries)


def _pair(image_id: int, qa_id: int, question: Question, random: Random) -> dict[str, Any]:
    return {
        "a_objects": [],
        "question": random.choice(_wordings(question)),
        "image_id": image_id,
        "qa_id": qa_id,
        "answer": _written(question, random),
        "q_objects": [],
    }


def _wordings(question: Question) -> list[str]:
    return [text for text in question.wordings if text.startswith(STARTS)]


def _written(question: Question, random: Random) -> str:
    """The answer with a capital and a full stop: a word, at times with an article, or a sentence."""
    answer = question.answer
    is_number, is_shape = answer.isdigit(), question.family in ("shape", "what is there")
    word = NUMBERS[int(answer)] if is_number and 0 < int(answer) < len(NUMBERS) and random.random() < 0.7 else answer
    thing = f"a {word}" if is_shape else word
    if random.random() < SENTENCES:
        text = f"there {'is' if answer == '1' else 'are'} {word}" if is_number else f"it is {thing}"
    else:
        text = random.choice((word, thing))
    return f"{text[0].upper()}{text[1:]}."
