"""VQA accuracy and answer normalisation, equal to the official evaluation script.

Source: github.com/GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py, revision a013f00 (March 2021):
answers are normalised only where the annotators disagree. Its lists of contractions, number words and articles, and its
quirks, are facts that scores depend on, so they are kept: the pattern for periods means "not after <=digit", and its
substitution stops after 32 periods, because a flag is passed where a count belongs.
"""

import re
from collections import Counter

from pixelbert_plugin import registry

ARTICLES = {"a", "an", "the"}
NUMBER_WORDS = {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
NUMBER_WORDS["none"] = "0"
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_MAX_PERIODS = 32

# The script's table, "written>normalised"; some entries are odd (somebody'd>somebodyd) and count as they are.
CONTRACTIONS = dict(
    pair.split(">")
    for pair in """
    'ow'sat>'ow's'at 'ows'at>'ow's'at aint>ain't arent>aren't cant>can't couldn'tve>couldn't've couldnt>couldn't
    couldnt've>couldn't've couldve>could've didnt>didn't doesnt>doesn't dont>don't hadn'tve>hadn't've hadnt>hadn't
    hadnt've>hadn't've hasnt>hasn't havent>haven't he'dve>he'd've hed>he'd hed've>he'd've hes>he's howd>how'd
    howll>how'll hows>how's I'dve>I'd've Id've>I'd've Im>I'm isnt>isn't it'dve>it'd've itd>it'd itd've>it'd've
    itll>it'll Ive>I've let's>let's maam>ma'am mightn'tve>mightn't've mightnt>mightn't mightnt've>mightn't've
    mightve>might've mustnt>mustn't mustve>must've neednt>needn't notve>not've oclock>o'clock oughtnt>oughtn't
    ow's'at>'ow's'at shant>shan't she'dve>she'd've she's>she's shed've>she'd've shouldn'tve>shouldn't've
    shouldnt>shouldn't shouldnt've>shouldn't've shouldve>should've somebody'd>somebodyd somebody'dve>somebody'd've
    somebodyd've>somebody'd've somebodyll>somebody'll somebodys>somebody's someone'dve>someone'd've
    someoned>someone'd someoned've>someone'd've someonell>someone'll someones>someone's something'dve>something'd've
    somethingd>something'd somethingd've>something'd've somethingll>something'll thats>that's there'dve>there'd've
    thered>there'd thered've>there'd've therere>there're theres>there's they'dve>they'd've theyd>they'd
    theyd've>they'd've theyll>they'll theyre>they're theyve>they've twas>'twas wasnt>wasn't we'dve>we'd've
    wed've>we'd've werent>weren't weve>we've whatll>what'll whatre>what're whats>what's whatve>what've whens>when's
    whered>where'd wheres>where's whereve>where've who'dve>who'd've whod>who'd whod've>who'd've wholl>who'll
    whos>who's whove>who've whyll>why'll whyre>why're whys>why's wont>won't wouldn'tve>wouldn't've wouldnt>wouldn't
    wouldnt've>wouldn't've wouldve>would've y'all'dve>y'all'd've y'alld've>y'all'd've y'allll>y'all'll yall>y'all
    yall'd've>y'all'd've yall'll>y'all'll you'dve>you'd've youd>you'd youd've>you'd've youll>you'll youre>you're
    youve>you've
    """.split()
)


def normalize_answer(answer: str) -> str:
    """An answer as the official script compares it: punctuation, case, number words, articles, contractions."""
    return _digits_and_articles(_punctuation(one_line(answer)))


@registry.register_metric("vqa_accuracy")
def vqa_accuracy(prediction: str, answers: tuple[str, ...]) -> float:
    """The official accuracy of one predicted answer against the annotators' answers, in 0…1.

    The mean over all leave-one-out sets of min(1, matches / 3): 0, .3, .6, .9, 1 for 0, 1, 2, 3, ≥ 4 of 10 answers.
    With a single annotated answer, as data sets other than VQA have, it is 1 for a match and 0 otherwise.
    """
    answers, prediction = tuple(map(one_line, answers)), one_line(prediction)
    if len(set(answers)) > 1:
        answers, prediction = tuple(map(normalize_answer, answers)), normalize_answer(prediction)
    return soft_scores(answers).get(prediction, 0.0)


def soft_scores(answers: tuple[str, ...]) -> dict[str, float]:
    """The accuracy that each distinct answer would earn, in 0…1; also the training targets (paper, section 4.1)."""
    return {answer: soft_score(matches, len(answers)) for answer, matches in Counter(answers).items()}


def soft_score(matches: int, total: int) -> float:
    """The accuracy of an answer that `matches` of `total` annotators gave, in 0…1; it grows with the matches."""
    if total == 1:
        return float(matches)
    # leaving out one of its own `matches`, or one of the others
    return (matches * min(1, (matches - 1) / 3) + (total - matches) * min(1, matches / 3)) / total


def one_line(answer: str) -> str:
    """An answer as the official script compares it where all annotators agree."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _punctuation(text: str) -> str:
    result = text
    has_comma_in_number = _COMMA_IN_NUMBER.search(text) is not None
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space or has_comma_in_number else " ")
    return _PERIOD.sub("", result, count=_MAX_PERIODS)


def _digits_and_articles(text: str) -> str:
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
