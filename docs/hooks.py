"""A hook of mkdocs: the site has the repository's documents at their own paths, so that every link between them holds."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
SHOWN = ("*.md", "*.cff", "LICENSE", "docs/*", "benchmarks/*.txt", "projects/**/*", "datasets/**/*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """What mkdocs found in docs/, which it would put at the top, replaced by the repository's files."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in sorted({path for pattern in SHOWN for path in ROOT.glob(pattern)}):
        if path.is_file() and "__pycache__" not in path.parts and path != Path(__file__):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files
