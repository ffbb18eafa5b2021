"""Variables of this process's environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set a variable while this lasts."""
    usual = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if usual is None:
            del os.environ[name]
        else:
            os.environ[name] = usual
