"""The question-only baselines: worked out by hand, and one by one as a second implementation counts."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.metrics.vqa import one_line
from pixelbert_plugin.processors.answers import answer_key
from pixelbert_plugin.tasks.question_prior import Answered, PrefixPrior, QuestionPrior, count_answered
from unit.tasks.test_vqa import sample


def question_prior(train) -> QuestionPrior:
    return QuestionPrior(count_answered(Mixture("train", {"asked": train})))


def test_prior_falls_back_from_question_to_type_to_all():
    prior = question_prior([sample(0), sample(1, "b?", "blue", "thing"), sample(2, "c?", "blue", "thing")])
    assert prior(sample(9)) == "red"
    assert prior(sample(9, "new?", kind="thing")) == "blue"
    assert prior(sample(9, "new?", kind="color")) == "red"
    assert prior(sample(9, "new?", kind="never")) == "blue"


def test_prior_by_first_words_takes_the_longest_prefix_that_training_knows():
    asked = ["what color is the cat?", "what color is the dog?", "what color are these", "how many dogs are there?", "why?"]
    train = [
        sample(n, text, answer) for n, (text, answer) in enumerate(zip(asked, ["Red", "red.", "blue", "2", "2"], strict=True))
    ]
    prior = PrefixPrior(count_answered(Mixture("train", {"asked": train})))
    assert (
        prior(sample(9, "What color is the very big house?")) == "Red"
    )  # four words; of its class's spellings by the alphabet
    assert prior(sample(9, "what color was it?")) == "Red"  # "what color": red twice, blue once
    assert prior(sample(9, "what color are those?")) == "blue"
    assert prior(sample(9, "how old?")) == "2" and prior(sample(9, "is it?")) == "2"  # red and 2 twice each: by the alphabet
    assert PrefixPrior(Answered({}))(sample(9)) == ""


def test_priors_give_the_spelling_that_annotators_write():
    """Ten times "t-shirt": the normalised "t shirt" would earn nothing."""
    prior = question_prior([sample(0, answer="t-shirt"), sample(1, answer="t-shirt"), sample(2, answer="T shirt")])
    assert prior(sample(9)) == "t-shirt"


ASKED = st.builds(
    lambda number, words, mark, answer, kind: sample(number, " ".join(words) + mark, answer, kind),
    number=st.integers(0, 99),
    words=st.lists(st.sampled_from("what color is the cat Dog why".split()), max_size=6),
    mark=st.sampled_from(["?", "", " .", "? "]),
    answer=st.sampled_from(["red", "Red", "red.", "the red", "2", "two", "no", "", "the", None]),
    kind=st.sampled_from(["", "what color", "why"]),
)


def one_by_one(prior, train, asked) -> str:
    """The answer to one question, counted for it alone."""

    def fact(question):
        return prior.fact(question.text, question.groups["question_type"])

    answered = [other for other in train if other.answer is not None]
    for key in prior.keys(fact(asked)):
        alike = [other for other in answered if key in prior.keys(fact(other))]
        if alike:
            classes = Counter(answer_key(other.answer) for other in alike)
            best = min(classes, key=lambda name: (-classes[name], name))
            spelt = Counter(one_line(other.answer) for other in answered if answer_key(other.answer) == best)
            return min(spelt, key=lambda spelling: (-spelt[spelling], spelling))
    return ""


@settings(deadline=None, max_examples=60)
@given(train=st.lists(ASKED, max_size=12), asked=st.lists(ASKED, max_size=4))
def test_all_at_once_is_what_one_by_one_gives(train, asked):
    for kind in (QuestionPrior, PrefixPrior):
        prior = kind(count_answered(Mixture("train", {"asked": train})))
        for question in [*asked, *train]:
            assert prior(question) == one_by_one(prior, train, question)
