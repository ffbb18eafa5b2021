"""What is shown of results, as HTML that a screen reader reads too. All text is escaped: it is what visitors typed."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

SMALL = 1 << 16  # pixels: so few are kept without loss


def bars(caption: str, columns: tuple[str, str], rows: Iterable[tuple[str, float]]) -> str:
    """A table of texts and their probabilities, as bars and numbers."""
    body = "".join(
        f'<tr><th scope="row">{escape(text)}</th><td><span class="bar" aria-hidden="true">'
        f'<span style="width: {100 * probability:.2f}%"></span></span></td><td>{percent(probability)}</td></tr>'
        for text, probability in rows
    )
    first, last = map(escape, columns)
    return (
        f'<table class="bars"><caption>{escape(caption)}</caption><thead><tr><th scope="col">{first}</th>'
        f'<td></td><th scope="col">{last}</th></tr></thead><tbody>{body}</tbody></table>'
    )


def figures(found: Sequence[tuple[Tensor, str, str]], name: str) -> str:
    """A list of pictures (3 h w uint8), each with its text in the place of the picture, and the text below it."""
    items = "".join(
        f'<li><figure><img src="{data_url(pixels)}" alt="{escape(alternative)}"><figcaption>{escape(caption)}</figcaption>'
        "</figure></li>"
        for pixels, alternative, caption in found
    )
    return f'<ul class="{name}">{items}</ul>'


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def data_url(pixels_3hw: Tensor) -> str:
    """A picture within the page itself: nothing of it lies in a file that could be asked for."""
    image = Image.fromarray(np.ascontiguousarray(pixels_3hw.permute(1, 2, 0).numpy()))
    is_small = image.width * image.height <= SMALL
    content = io.BytesIO()
    image.save(content, "PNG") if is_small else image.save(content, "JPEG", quality=85)
    return f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(content.getvalue()).decode()}"


def percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"
