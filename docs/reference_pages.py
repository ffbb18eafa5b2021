"""A hook of mkdocs: the parts of the reference that are made from the code when the site is built.

`docs/configuration.md` gets every option of a run, `docs/components.md` every component with its options: types, defaults and
the comments behind the fields, as `pixelbert-run --describe` prints them.
"""

import dataclasses
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from pixelbert_plugin import registry
from pixelbert_plugin.config import describe, shipped
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.registry.schema import Component

DOCS = Path(__file__).parent


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page's own words, then what is made for it."""
    made = {"docs/configuration.md": configuration, "docs/components.md": components}.get(page.file.src_uri)
    return markdown if made is None else f"{markdown.rstrip()}\n\n{made()}\n"


def configuration() -> str:
    """The options outside of sections, the sections in the order of RunConfig, and the shipped configurations."""
    is_section = {
        field.name: dataclasses.is_dataclass(field.type) and field.type is not Component
        for field in dataclasses.fields(RunConfig)
    }
    rows: dict[str, list[describe.Option]] = {}
    for row in describe.option_rows(RunConfig):
        name = row.key.partition(".")[0]
        rows.setdefault(name if is_section[name] else "The run", []).append(row)
    parts = [f"## {name}\n\n{table(rows[name])}" for name in rows]
    listed = [f"| `{shipped.short_name(path)}` | `{path}` | {cell(text)} |" for path, text in shipped.descriptions().items()]
    parts.append("## Configurations that come with the package")
    parts.append("\n".join(["| for `--copy-config` | for `config=` | what it is |", "|---|---|---|", *listed]))
    return "\n\n".join(parts)


def components() -> str:
    """Every component of the package by kind."""
    plugins.load()
    parts = []
    for kind in registry.KINDS:
        parts.append(f"## {kind.replace('_', ' ').capitalize()}s")
        for name in registry.names(kind):
            options = registry.options_of(kind, name)
            parts.append(f"### {name} {{: #{kind}-{name} }}\n\n{linked(registry.documentation(kind, name))}")
            parts.append(f"`{registry.source(kind, name)}`{'' if options else ', no options'}")
            parts += [table(describe.option_rows(options))] if options else []
    return "\n\n".join(parts)


def table(rows: list[describe.Option]) -> str:
    lines = [f"| `{row.key}` | `{row.type}` | `{row.default}` | {cell(row.comment)} |" for row in rows]
    return "\n".join(["| option | type | default | what it is |", "|---|---|---|---|", *lines])


def cell(text: str) -> str:
    """A comment inside a table: what Markdown or HTML would read as its own stays text."""
    return linked(re.sub(r"([|*])", r"\\\1", text).replace("<", "&lt;"))


def linked(text: str) -> str:
    """Documents that a comment names by their paths become links."""

    def link(found: re.Match[str]) -> str:
        return f"[{found[0]}]({found[1]})" if (DOCS / found[1]).is_file() else found[0]

    return re.sub(r"\bdocs/(\w+\.md)", link, text)
