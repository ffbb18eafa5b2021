"""Pre-training: masked language modelling and image-text matching (paper, sections 3.3.1 and 3.3.2).

B samples, R = 2B texts with ITM (each sample's own text, then one of another image), L tokens, M masked words, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.interfaces import MaskingTextProcessor, Task
from pixelbert_plugin.processors.masking import mask_words
from pixelbert_plugin.registry import returned
from pixelbert_plugin.seeding import derive
from pixelbert_plugin.tasks.log_odds import log_odds, log_odds_of_all
from pixelbert_plugin.tasks.options import PretrainConfig
from pixelbert_plugin.types import Batch, ModelOutput, Result, Sample


@registry.register_task("pretrain")
class PretrainTask(Task):
    """Pre-training on captions and region phrases by MLM and ITM; validation reports the accuracy of both.

    Words are masked alike in true and false pairs, so that a mask gives nothing away; MLM's loss is taken on true pairs
    only.
    """

    Config = PretrainConfig
    processors = ("text", "image")
    images_per_sample = 1
    reads_logits_only = True

    def __init__(self, config: PretrainConfig, processors: dict[str, Any]):
        self.config = config
        self.text: MaskingTextProcessor = processors["text"]
        name = registry.place_of(config).name
        registry.require("processor", self.text, MaskingTextProcessor, f"the task {name!r}")
        self.is_word_V, self.continues_V = returned.pieces(self.text)
        self._pieces: dict[int, str] = {}  # decoded, by id
        self.num_negatives = int(config.itm)
        self.pairs_per_sample = 1 + self.num_negatives
        self.main_metric = "mlm_accuracy" if config.mlm else "itm_accuracy"

    def heads(self) -> dict[str, int]:
        sizes = {"mlm": self.text.vocab_size, "itm": 2}
        return {name: size for name, size in sizes.items() if getattr(self.config, name)}

    def asked(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        found: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {"fill": _words} if self.config.mlm else {}
        return found | ({"match": lambda logits: log_odds(logits["itm"])} if self.config.itm else {})

    def explained(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        asked = self.asked()
        return asked | ({"fill": lambda logits: log_odds_of_all(logits["mlm"])} if "fill" in asked else {})

    def prepare(self, batch: Batch, seeds: list[int]) -> None:
        """Masks words of input_ids. Targets: `mlm_positions` M (into R·L), `mlm` M piece ids, `mlm_samples` M."""
        if not self.config.mlm:
            return
        texts = len(batch.input_ids) // len(batch)
        ids_RL = batch.input_ids.numpy()
        masked_RL, chosen_RL = ids_RL.copy(), np.zeros_like(ids_RL, dtype=bool)
        lengths_R = batch.text_mask.sum(1).tolist()
        options = (self.text.mask_token_id, self.config.mask_probability, self.config.whole_words)
        for row, length in enumerate(lengths_R):
            draw = np.random.Generator(np.random.PCG64(derive(seeds[row // texts], "mask", row % texts)))
            masked, chosen = mask_words(ids_RL[row, :length], self.is_word_V, self.continues_V, *options, draw)
            masked_RL[row, :length] = masked
            chosen_RL[row, :length] = chosen if row % texts == 0 else False  # the loss is taken on matched pairs only
        positions_M = np.flatnonzero(chosen_RL)
        batch.targets["mlm_positions"] = torch.from_numpy(positions_M)
        batch.targets["mlm"] = torch.from_numpy(ids_RL.reshape(-1)[positions_M])
        batch.targets["mlm_samples"] = torch.from_numpy(positions_M // (ids_RL.shape[1] * texts))
        batch.input_ids = torch.from_numpy(masked_RL)

    def loss(self, output: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """`mlm`: cross-entropy summed over masked words; `itm`: over texts."""
        parts = {}
        if self.config.mlm:
            weights_M = batch.weights[batch.targets["mlm_samples"]]
            parts["mlm"] = weighted_cross_entropy(output.logits["mlm"], batch.targets["mlm"], weights_M)
        if self.config.itm:
            weights_R = batch.weights.repeat_interleave(2)
            parts["itm"] = weighted_cross_entropy(output.logits["itm"], _is_true_R(batch), weights_R)
        return parts

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = {}
        if self.config.mlm:
            counts["mlm"] = batch.weights[batch.targets["mlm_samples"]].sum()
        if self.config.itm:
            counts["itm"] = 2 * batch.weights.sum()
        return counts

    def predict(self, output: ModelOutput, batch: Batch) -> list[Result]:
        """`prediction` and `truth`: the masked words as guessed and as they are."""
        results = [Result(sample, "", "") for sample in batch.samples]
        if self.config.mlm:
            guessed_M = output.logits["mlm"].argmax(1).tolist()
            words_B: list[list[tuple[int, int]]] = [[] for _ in results]  # guessed and true
            for row, *pair in zip(batch.targets["mlm_samples"].tolist(), guessed_M, batch.targets["mlm"].tolist(), strict=True):
                words_B[row].append(pair)
            for result, words in zip(results, words_B, strict=True):
                result.prediction, result.truth = (self.text.decode([pair[side] for pair in words]) for side in (0, 1))
                result.scores |= {"mlm_right": sum(g == t for g, t in words), "mlm_words": len(words)}
            for result, row in zip(results, self._fill_ins(batch, words_B), strict=True):
                result.rows = row
        if self.config.itm:
            is_right_R = output.logits["itm"].argmax(1) == _is_true_R(batch)
            for result, right in zip(results, is_right_R.view(-1, 2).sum(1).tolist(), strict=True):
                result.scores["itm_right"] = right
        return results

    def _fill_ins(self, batch: Batch, words_B: list[list[tuple[int, int]]]) -> list[list[dict[str, str]]]:
        """Of each sample, what stood at each masked place, what was guessed, and what is true."""
        stood_M = batch.input_ids.flatten()[batch.targets["mlm_positions"]].tolist()
        stood = iter(stood_M)  # the samples' masked words follow each other

        def row(guess: int, true: int) -> dict[str, str]:
            return {"word": self._piece(next(stood)), "guess": self._piece(guess), "truth": self._piece(true)}

        return [[row(*pair) for pair in words] for words in words_B]

    def _piece(self, token_id: int) -> str:
        if token_id not in self._pieces:
            self._pieces[token_id] = "[MASK]" if token_id == self.text.mask_token_id else self.text.decode([token_id])
        return self._pieces[token_id]

    def metrics(self, results: list[Result]) -> dict[str, float]:
        """`mlm_accuracy` over all masked words, `itm_accuracy` over all pairs (half of them false)."""

        def total(name: str) -> float:
            return sum(result.scores[name] for result in results)

        metrics = {}
        if self.config.mlm:
            metrics["mlm_accuracy"] = total("mlm_right") / max(total("mlm_words"), 1)
        if self.config.itm:
            metrics["itm_accuracy"] = total("itm_right") / (2 * len(results))
        return metrics

    def predictions(self, results: list[Result]) -> tuple[str, str]:
        """One line per sample: its id, the masked words, the guesses and the scores, tab-separated."""
        names = list(results[0].scores) if results else []
        lines = ["\t".join(("sample_id", "truth", "prediction", *names))]
        for result in results:
            scores = [f"{result.scores[name]:g}" for name in names]
            lines.append("\t".join((str(result.sample.sample_id), str(result.truth), result.prediction, *scores)))
        return ".tsv", "\n".join(lines) + "\n"

    @staticmethod
    def read_predictions(config: PretrainConfig, text: str, samples: Mapping[str, Sample]) -> list[Result]:
        header, *lines = (line.split("\t") for line in text.splitlines())
        if not set(header) >= {"mlm_right", "mlm_words"} and "itm_right" not in header:
            raise ValueError("it has no scores, as files of an earlier version: evaluate that run again with run_type=val")
        results = []
        for sample_id, truth, prediction, *scores in lines:
            values = dict(zip(header[3:], map(float, scores), strict=True))
            results.append(Result(samples[sample_id], prediction, truth, values))
        return results

    @staticmethod
    def terms(results: list[Result]) -> dict[str, dict[int, tuple[float, float]]]:
        """`mlm_accuracy` of masked words, `itm_accuracy` of a true and a false pair a sample."""
        found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        for place, result in enumerate(results):
            scores = result.scores
            if "mlm_words" in scores:
                found["mlm_accuracy"][place] = (scores["mlm_right"], scores["mlm_words"])
            if "itm_right" in scores:
                found["itm_accuracy"][place] = (scores["itm_right"], 2.0)
        return dict(found)


def _words(logits: dict[str, Tensor]) -> Tensor:
    """M V float32: at each masked word, the probabilities of the vocabulary's entries, which add up to 1."""
    return logits["mlm"].float().softmax(1)


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sum of the rows' losses, each times its weight. Logits: rows by classes; targets int64 and weights float by row."""
    return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()


def _is_true_R(batch: Batch) -> Tensor:
    """R int64: 1 at each sample's own text, 0 at its negative."""
    return 1 - torch.arange(2 * len(batch), device=batch.weights.device) % 2  # made there: nothing is sent to the device
