"""The question-only prior of a task, learned before the first split with answers is evaluated."""

import logging
from collections.abc import Callable

from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.tasks.base import Task

logger = logging.getLogger(__name__)


class Baseline:
    """Lets a task learn from the training split what its metrics compare with, once. `samples`: of the data sets whose answers
    count, by split."""

    def __init__(self, task: Task, samples: Callable[[str], Mixture]):
        self.task, self.samples = task, samples
        self._is_learned = task.fit is None

    def learn(self) -> None:
        """An evaluation alone may lack the training split's files: then the baseline is left out, with a warning."""
        if self._is_learned or self.task.fit is None:
            return
        self._is_learned = True
        try:
            samples = self.samples("train")
            if not samples.parts:
                raise UserError("all data sets are of only_known_answers")
            self.task.fit(samples)
        except UserError as error:
            logger.warning("the question-only prior is left out: %s", error)

    def learn_for(self, mixture: Mixture) -> None:
        """`learn`, where these samples have answers to compare with."""
        if any(samples[0].answers for samples in mixture.parts.values()):
            self.learn()
