"""easy-VQA as a plugin: one decorated class makes a data set of the PyPI package `easy-vqa` (MIT licence).

4,000 training and 1,000 test images of one coloured shape each, 48,248 questions, 13 answers. One training image in ten
is held out as `val`, which chooses the checkpoint; `test` is only ever evaluated.
"""

from pathlib import Path

from pixelbert_plugin import Builder, Sample, UserError, register_builder

SHAPES = {"circle", "rectangle", "triangle"}


@register_builder("easy_vqa")
class EasyVqaBuilder(Builder):
    """easy-VQA: questions about the shape and the colour of one object."""

    def samples(self, split: str) -> list[Sample]:
        try:
            import easy_vqa
        except ImportError as error:
            raise UserError("datasets=easy_vqa: needs the package easy-vqa; pip install easy-vqa") from error
        is_test = split == "test"
        questions = easy_vqa.get_test_questions() if is_test else easy_vqa.get_train_questions()
        paths = easy_vqa.get_test_image_paths() if is_test else easy_vqa.get_train_image_paths()
        return [
            Sample(
                sample_id=number,
                image_ids=(image_id,),
                images=(Path(paths[image_id]),),
                text=text,
                answers=(answer,),
                answer=answer,
                groups={"question_type": question_kind(text, answer)},
            )
            for number, (text, answer, image_id) in enumerate(zip(*questions, strict=True))
            if is_test or (image_id % 10 == 9) == (split == "val")
        ]


def question_kind(text: str, answer: str) -> str:
    """What is asked for: the shape, the colour, or whether there is a given shape or colour."""
    if answer not in ("yes", "no"):
        return "which shape" if answer in SHAPES else "which color"
    return "is it this shape" if SHAPES & set(text.rstrip("?").split()) else "is it this color"
