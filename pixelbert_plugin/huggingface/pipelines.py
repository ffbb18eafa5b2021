"""`transformers.pipeline("pixelbert-question-answering", model=FOLDER)`: an image and a question → answers with scores."""

from typing import Any

from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import GenericTensor, Pipeline
from transformers.utils.generic import ModelOutput

from pixelbert_plugin.huggingface.modeling import PixelBertForQuestionAnswering

QUESTION_ANSWERING = "pixelbert-question-answering"  # transformers 5 has no task "visual-question-answering" any more


class PixelBertQuestionAnsweringPipeline(Pipeline):
    """`answer(image=…, question=…, top_k=5)`, or a list of {"image": …, "question": …}; images as the processor takes them.

    Gives the `top_k` likeliest answers, [{"answer": "red", "score": 0.9}, …], each with its own probability in 0…1.
    """

    _load_processor: Any = True
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def _sanitize_parameters(self, top_k: int | None = None, **others: Any) -> tuple[dict[str, Any], ...]:
        if others:
            raise ValueError(f"{min(others)}: no option of {QUESTION_ANSWERING}; it has top_k")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k}: must be at least 1")
        return {}, {}, {} if top_k is None else {"top_k": top_k}

    def __call__(self, inputs: Any = None, *_: Any, image: Any = None, question: str | None = None, **options: Any) -> Any:
        return super().__call__({"image": image, "question": question} if inputs is None else inputs, **options)

    def preprocess(self, input_: Any, **_: Any) -> dict[str, GenericTensor]:
        if not isinstance(input_, dict) or input_.get("image") is None or input_.get("question") is None:
            raise ValueError("give image=… and question=…, or {'image': …, 'question': …}")
        processor: Any = self.processor
        return processor(images=input_["image"], text=input_["question"], return_tensors="pt")

    def _forward(self, input_tensors: dict[str, GenericTensor], **_: Any) -> ModelOutput:
        return self.model(**input_tensors)

    def postprocess(self, model_outputs: ModelOutput, **options: Any) -> Any:
        logits_A, top_k = model_outputs["logits"][0], options.get("top_k", 5)
        best = logits_A.float().sigmoid().topk(min(top_k, len(logits_A)))
        names: Any = self.model.config.id2label
        return [
            {"answer": names[index], "score": score}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def register() -> None:
    """Make the task's name known to `transformers.pipeline`."""
    if QUESTION_ANSWERING not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            QUESTION_ANSWERING,
            pipeline_class=PixelBertQuestionAnsweringPipeline,
            pt_model=PixelBertForQuestionAnswering,
            type="multimodal",
        )
