"""A hook of mkdocs: the site has the repository's documents at their own paths, so that every link between them holds."""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks")  # whose warnings end a strict build
ROOT = Path(__file__).parent.parent
SHOWN = ("*.md", "*.cff", "LICENSE", "docs/**/*", "benchmarks/*.md", "benchmarks/*.txt", "projects/**/*", "datasets/**/*")


@event_priority(100)  # before plugins, which look for their notebooks among the files
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """What mkdocs found in docs/, which it would put at the top, replaced by the repository's files."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in sorted({path for pattern in SHOWN for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT)
        if path.is_file() and path.suffix != ".py" and not any(part.startswith((".", "__")) for part in name.parts):
            files.append(File(name.as_posix(), str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A notebook's links to documents: the plugin leaves them as they are in the repository, `../demo.md`."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def on_site(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), found[1]))
        target = files.get_file_from_path(path)
        if target is None:
            LOG.warning(f"{page.file.src_uri}: links to {path}, which is not there")
            return found[0]
        return f'href="{target.url_relative_to(page.file)}{found[2] or ""}"'

    return re.sub(r'href="([^":#]+\.md)(#[^"]*)?"', on_site, html)
