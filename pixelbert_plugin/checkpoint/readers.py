"""Files of weights that others wrote: each layout has a component of the kind `checkpoint_reader` that recognises it.

    @registry.register_checkpoint_reader("theirs")
    class TheirCheckpoint:
        def recognises(self, path: Path) -> bool: ...
        def read(self, path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]: ...

`read` gives the weights by our names, and what the file holds beside them (`{"processors": …}`); it raises UserError, with
`key`, the configuration's key that named the file, where the file is not what it was taken for.
"""

from pathlib import Path
from typing import Any

from pixelbert_plugin import registry


def reader_of(path: Path) -> Any:
    """The component that reads the file; None where it is no file of others."""
    if not path.is_file():
        return None
    readers = (registry.build("checkpoint_reader", name) for name in registry.names("checkpoint_reader"))
    return next((reader for reader in readers if reader.recognises(path)), None)
