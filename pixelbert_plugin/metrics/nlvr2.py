"""NLVR2's accuracy and consistency (Suhr et al., ACL 2019; github.com/lil-lab/nlvr, nlvr2/eval/metrics.py)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from pixelbert_plugin.errors import UserError

IDENTIFIER = re.compile(r"[a-z]+[0-9]*(-[0-9]+){3}")  # split-set-pair-sentence


def sentence_group(identifier: str) -> str:
    """ "dev-850-0-1" (split-set-pair-sentence) → "dev-850-1": the examples that share a sentence."""
    parts = identifier.split("-")
    if len(parts) < 4:
        raise UserError(f"sample {identifier!r}: an NLVR2 identifier is split-set-pair-sentence, as in dev-850-0-0")
    return "-".join((*parts[:2], *parts[3:]))


def has_sentences(identifiers: Iterable[str]) -> bool:
    """Whether all are NLVR2's, which say the sentence: those of a table of one's own need not."""
    return all(IDENTIFIER.fullmatch(identifier) for identifier in identifiers)


def accuracy_and_consistency(is_right: Mapping[str, bool]) -> dict[str, float]:
    """By identifier whether the prediction is right → `accuracy`, and `consistency`: sentences right on all their pairs."""
    by_sentence: dict[str, list[bool]] = defaultdict(list)
    for identifier, right in is_right.items():
        by_sentence[sentence_group(identifier)].append(right)
    return {
        "accuracy": sum(is_right.values()) / len(is_right),
        "consistency": sum(map(all, by_sentence.values())) / len(by_sentence),
    }
