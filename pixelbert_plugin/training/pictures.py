"""What trackers are shown of a validation: pictures with texts below them, and tables. Results → matplotlib figures, Markdown.

Each image stands in a row of its own height with its text below it, so that no text covers another. h w pixels, R C the rows
and columns of the CNN's grid.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin.data import images
from pixelbert_plugin.data.light import in_light, nearest_cells, over_pixels
from pixelbert_plugin.tasks.base import Result
from pixelbert_plugin.training.looks import Drawn, Look
from pixelbert_plugin.types import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES_PER_ROW = 4
WIDTH, HEIGHT = 3.0, 2.3  # inches of a picture
LINE = 0.16  # inches of a line of text
LETTERS = 40  # of a line below a picture
LINES = 6  # of a text below a picture; what is longer is cut
WIDE_LETTERS = 88  # of a line beside a picture
RIGHT_FROM = 0.5  # of a score of accuracy, which may be partial
ROWS = 40  # of a table


def is_right(result: Result) -> bool | None:
    """Whether the prediction is, by its accuracy where it has one; None where nobody knows."""
    if "accuracy" in result.scores:
        return result.scores["accuracy"] >= RIGHT_FROM
    return None if result.truth is None else result.prediction == result.truth


def spread(results: Sequence[Result], count: int) -> list[Result]:
    """Results of so many different images, evenly over the split; the same ones at every evaluation."""
    by_image: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        by_image.setdefault(result.sample.image_ids, []).append(result)
    groups, chosen = list(by_image.values()), min(count, len(by_image))
    picked = [groups[index * len(groups) // chosen] for index in range(chosen)]
    return [group[index % len(group)] for index, group in enumerate(picked)]  # not the first question of each


def figure(results: Sequence[Result]) -> "Figure":
    """Each result's image with text, truth and prediction."""
    texts = []
    for result in results:
        told = f"{result.sample.text}\ntrue: {result.truth}\npredicted: {result.prediction}"
        texts.append((told, "firebrick" if is_right(result) is False else "black"))
    return _grid([picture_of(result.sample) for result in results], texts)


def figure_of_rankings(results: Sequence[Result]) -> "Figure":
    """Each image with the captions that were found for it beside it, best first; its own ones are marked."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.0, HEIGHT * len(results)))
    drawn.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.03, hspace=0.08)
    axes = drawn.subplots(len(results), 2, squeeze=False, width_ratios=(1, 2.3))
    for (left, right), result in zip(axes, results, strict=True):
        left.axis("off")
        right.axis("off")
        _show(left, picture_of(result.sample))
        height = 1.0
        for place, row in enumerate(result.rows, 1):
            lines = _wrapped(f"{place}. {row['caption']}", WIDE_LETTERS, 2)
            color = "darkgreen" if row["its own"] else "black"
            weight = "bold" if row["its own"] else "normal"
            right.text(0, height, lines, fontsize=9, color=color, weight=weight, va="top", transform=right.transAxes)
            height -= (1.2 * lines.count("\n") + 1.35) * LINE / HEIGHT
    return drawn


def figure_of_looks(looks: Sequence[Look]) -> "Figure":
    """Each image in its own light where the model looks, dark elsewhere, with text, truth and prediction."""
    pictures = [None if (picture := picture_of(look.sample)) is None else lit(picture, look) for look in looks]
    return _grid(pictures, [(look.told, "black") for look in looks])


def figure_of_sampled(of_images: Sequence[Drawn]) -> "Figure":
    """Each image, dark where it is nearest to a pixel of the CNN's grid that was not drawn."""
    shown, told = [], []
    for each in of_images:
        _, height, width = each.picture.shape
        shown.append(in_light(each.picture, nearest_cells(each.is_drawn_RC, (height, width), each.centres)))
        rows, columns = each.is_drawn_RC.shape
        told.append((f"{int(each.is_drawn_RC.sum())} of {rows} × {columns} pixels", "black"))
    return _grid(shown, told)


def table(results: Sequence[Result]) -> str:
    """The rows of results as one table in Markdown, each sample's text before its own rows; "" where none has any."""
    rows = [(result, row) for result in results for row in result.rows][:ROWS]
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    lines = ["| text | " + " | ".join(columns) + " |", "|" + "---|" * (1 + len(columns))]
    last: Result | None = None
    for result, row in rows:
        text = "" if result is last else result.sample.text
        lines.append("| " + " | ".join(_cell(value) for value in (text, *(row.get(name, "") for name in columns))) + " |")
        last = result
    return "\n".join(lines)


def picture_of(sample: Sample) -> Tensor | None:
    """3 h w uint8: the sample's image, or its images side by side; None where one cannot be read."""
    try:
        found = [images.read_image(Path(path), max_pixels=None) for path in sample.images]
    except images.BadImageError:  # skipped, as on_bad_image says
        return None
    height = max(each.shape[1] for each in found)
    return torch.cat([F.pad(each, (0, 0, 0, height - each.shape[1]), value=255) for each in found], dim=2)


def lit(picture_3hw: Tensor, look: Look) -> Tensor:
    """3 h w uint8: the images side by side, each in the light of its own weights."""
    most = max(float(each.answer.max()) for each in look.maps) or 1.0
    columns, done, height = [], 0, picture_3hw.shape[1]
    for each, width in zip(look.maps, look.widths or [picture_3hw.shape[2]], strict=True):
        share_hw = over_pixels(each.answer / most, (height, width), each.centres)
        columns.append(in_light(picture_3hw[:, :, done : done + width], share_hw))
        done += width
    return torch.cat(columns, dim=2)


def _grid(pictures: Sequence[Tensor | None], texts: Sequence[tuple[str, str]]) -> "Figure":
    """Pictures in rows, with a text in a color below each."""
    from matplotlib.figure import Figure

    columns = min(PICTURES_PER_ROW, len(pictures))
    rows = -(-len(pictures) // columns)
    text_height = LINE * (LINES + 1)
    drawn = Figure(figsize=(WIDTH * columns, (HEIGHT + text_height) * rows))
    # fixed: a layout that looks for room draws all texts several times
    drawn.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99, wspace=0.04, hspace=0.02)
    axes = drawn.subplots(2 * rows, columns, squeeze=False, height_ratios=[HEIGHT, text_height] * rows)
    for axis in axes.flat:
        axis.axis("off")
    for index, (picture, (text, color)) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(index, columns)
        _show(axes[2 * row, column], picture)
        below, lines = axes[2 * row + 1, column], _wrapped(text, LETTERS, LINES)
        below.text(0.5, 1, lines, fontsize=8, color=color, ha="center", va="top", transform=below.transAxes)
    return drawn


def _show(axis: Any, picture_3hw: Tensor | None) -> None:
    if picture_3hw is None:
        axis.text(0.5, 0.5, "the image cannot be read", ha="center", va="center", transform=axis.transAxes)
    else:
        axis.imshow(picture_3hw.permute(1, 2, 0).numpy())


def _wrapped(text: str, letters: int, most: int) -> str:
    """In so many lines at most; of a text of several lines, the last ones stay and the first is cut."""
    wrapped = [textwrap.wrap(line, letters) or [""] for line in text.split("\n")]
    room = most - (len(wrapped) - 1)
    first, *others = wrapped
    if len(first) > room:
        first = [*first[: room - 1], textwrap.shorten(" ".join(first[room - 1 :]), letters, placeholder=" …")]
    rest = [lines[0] if len(lines) == 1 else f"{lines[0][: letters - 2]} …" for lines in others]
    return "\n".join(line.replace("$", r"\$") for line in (*first, *rest))  # matplotlib would set formulas


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
