"""HTML of results: nothing of what visitors typed is markup."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from pixelbert_plugin.demo.markup import bars, data_url, figures

EVIL = "<script>alert('x')</script>\"'&"


def test_a_table_has_its_texts_and_numbers():
    html = bars(EVIL, ("answer", "probability"), [(EVIL, 0.12345), ("yes", 1.0)])
    assert "<script" not in html and html.count("&lt;script&gt;") == 2
    assert "width: 12.35%" in html and "<td>12.3 %</td>" in html and "<td>100.0 %</td>" in html
    assert '<th scope="row">yes</th>' in html and "<caption>" in html


def test_a_picture_is_within_the_page():
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 20, 30), dtype=np.uint8))
    kind, content = data_url(pixels).split(",")
    assert kind == "data:image/png;base64"
    found = Image.open(io.BytesIO(base64.b64decode(content)))
    assert np.array_equal(np.array(found), pixels.permute(1, 2, 0).numpy())
    kind, content = data_url(torch.full((3, 400, 300), 77, dtype=torch.uint8)).split(",")
    found = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:image/jpeg;base64" and found.size == (300, 400) and np.ptp(np.array(found)) <= 2
    html = figures([(pixels, EVIL, EVIL)], "found")
    assert "<script" not in html and 'alt="&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&#x27;&amp;"' in html
