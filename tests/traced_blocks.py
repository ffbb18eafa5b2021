"""training.compile without the compiler, which takes minutes: what torch traces is run as it is, by the usual kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from pixelbert_plugin.training import compilation


@contextmanager
def traced_blocks() -> Iterator[None]:
    """Tracing, guards and the number of compilations are as ever; sums are formed in the same order as without."""
    with (
        patch("torch._inductor.compile_fx.compile_fx", lambda graph, inputs: graph.forward),
        patch.object(compilation, "require_compiler", lambda device: None),
    ):
        yield
