"""Images and texts → the model's input, called as ViltProcessor is. R texts, L tokens."""

from typing import Any

from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from pixelbert_plugin.huggingface.image_processing import PixelBertImageProcessor


class PixelBertProcessor(ProcessorMixin):
    """`processor(images=…, text=…, return_tensors="pt")` → input_ids, attention_mask, pixel_values, pixel_mask.

    Texts are filled up to the longest and cut after the tokenizer's `model_max_length`, as in the training; images as
    PixelBertImageProcessor has them. One image with several texts goes through the CNN once: then `image_index` says so.
    """

    def __init__(self, image_processor: PixelBertImageProcessor, tokenizer: Any, **kwargs: Any):
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        *,
        padding: bool | str = True,
        truncation: bool | str = True,
        return_tensors: str | None = None,
        **tokenizer_options: Any,
    ) -> BatchFeature:
        """One image and one text, or lists of as many; of two images to each text a list of pairs, or one pair with one text.
        `tokenizer_options`: the tokenizer's, such as max_length. Raises ValueError where the numbers do not fit or an image
        cannot be read."""
        if images is None and text is None:
            raise ValueError("images, text: give one of them at least")
        found: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            options = {"padding": padding, "truncation": truncation, **tokenizer_options}
            found |= self.tokenizer(texts, return_token_type_ids=False, **options)
        if images is not None:
            is_pair = isinstance(text, str) and isinstance(images, list | tuple) and len(images) > 1
            found |= self.image_processor([images] if is_pair else images)
        if images is not None and text is not None and (rows := len(found["pixel_values"])) != len(texts):
            if rows > 1:
                raise ValueError(
                    f"images, text: {rows} images or lists of them to {len(texts)} texts; give as many, or one image"
                )
            count = 1 if found["pixel_values"].dim() == 4 else found["pixel_values"].shape[1]
            found["image_index"] = [list(range(count))] * len(texts)
        return BatchFeature(found, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "pixel_mask"]
