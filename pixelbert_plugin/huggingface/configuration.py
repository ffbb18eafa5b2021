"""config.json of a folder in transformers' layout: what the native model is built from, in one flat mapping."""

from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from pixelbert_plugin import registry
from pixelbert_plugin.registry import plugins


class PixelBertConfig(PreTrainedConfig):
    """The options of the native model and its task, with what transformers has names for.

    model_options: those of `model_config.pixelbert`, as a YAML has them: encoders as {"type": …, "params": {…}}. What is left
        out is as in a YAML: the paper's, with random weights.
    vocab_size, pad_token_id: of the tokenizer.
    task, task_options: the native task ("vqa", "nlvr2", "retrieval", "pretrain") and its options, which its loss has.
    answers: of a task with answers, the vocabulary's classes, as the native processor keeps them; `id2label` has each as it is
        predicted. None: not known, `num_labels` says how many there are.
    run: the rest of the configuration of the run that trained the model, without paths of its machine; {}: no such run.
    """

    model_type = "pixelbert"

    def __init__(
        self,
        *,
        model_options: dict[str, Any] | None = None,
        vocab_size: int = 30522,
        pad_token_id: int = 0,
        task: str | None = None,
        task_options: dict[str, Any] | None = None,
        answers: list[str] | None = None,
        run: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        self.model_options = model_options or {}
        self.vocab_size = vocab_size
        self.task, self.task_options = task, task_options or {}
        self.answers, self.run = answers, run or {}
        super().__init__(**kwargs)
        self.pad_token_id = pad_token_id  # of version 5's first releases the base class sets it, and of later ones it does not

    def native_model_options(self) -> Any:
        """`model_options` as the native model takes them, checked, with the defaults. Raises ConfigError."""
        plugins.load()
        return registry.configure("model", self.model_type, self.model_options, "config.model_options")

    def native_task_options(self, task: str) -> Any:
        """The options of this native task, checked: `task_options` where they are its own, else the defaults."""
        plugins.load()
        options = self.task_options if task == self.task else {}
        return registry.configure("task", task, options, "config.task_options")
