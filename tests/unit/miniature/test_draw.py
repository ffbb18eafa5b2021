"""A scene without some of its figures."""

import numpy as np

from pixelbert_plugin.miniature.draw import render
from pixelbert_plugin.miniature.scenes import Figure, Scene


def test_hidden_figures_leave_all_else_as_it_is():
    figures = tuple(
        Figure(shape=shape, color=color, size="", row=0, column=0, x=x, y=20, diameter=20)
        for shape, color, x in (("circle", "red", 20), ("star", "white", 60))
    )
    scene = Scene(rows=1, columns=1, figures=figures, width=80, height=40)
    whole, without = (np.asarray(render(scene, 3, hidden), dtype=int) for hidden in ((), (0,)))
    difference = np.abs(whole - without).max(-1)
    assert difference[14:27, 14:27].min() > 40  # where the circle was
    assert difference[:, 35:].max() <= 3  # the star and the ground: the light alone
    assert np.array_equal(render(scene, 3), whole)
