"""`pixelbert-data new table=my.csv images=photos out=my.yaml`: looks at a table, and writes a YAML that trains on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixelbert_plugin.commands.table_look import KEY, NewConfig, look
from pixelbert_plugin.commands.table_recipe import written
from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.registry.schema import ConfigError


def new(own: NewConfig) -> str:
    """Write the configuration. Returns what was found, and the commands that go on. Raises UserError with the rows of what is
    wrong in the table."""
    out = Path(own.out)
    if out.exists() and not own.overwrite:
        raise ConfigError("out", f"{own.out!r} is there already; name another file, or give overwrite=true")
    if not out.parent.is_dir():
        raise ConfigError("out", f"{own.out!r}: there is no folder {str(out.parent)!r}")
    with _in_own_words():
        found = look(own)
    text, told = written(found, own)
    with writing(out, "out"):
        out.write_text(text, encoding="utf-8")
    lines = [f"{name:<12}{line}" for name, line in told]
    lines += [f"{kind:<12}{remark}" for kind, remark in found.remarks()]
    run = out.stem
    after = f"pixelbert-run config={own.out}\npixelbert-demo checkpoint=save/{run}"
    does = "trains on it, and measures nothing" if found.run_type == "train" else "trains and evaluates it"
    return "\n".join(lines) + f"\n\n{own.out} {does}; then a page asks what was trained:\n\n{after}"


@contextmanager
def _in_own_words() -> Iterator[None]:
    """Errors of the data set name its options as this command takes them: encoding, not dataset_config.table.encoding."""
    try:
        yield
    except UserError as error:
        told = str(error).replace(f"{KEY}.", "").replace("env.data_dir", "the folder that the command is run in")
        raise UserError(told) from error
