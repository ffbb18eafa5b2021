"""The documents' links, as they are read in the repository and on the built site; what the site makes from the code."""

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import EnvConfig, RunConfig, TrainingConfig

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/**/*.md", "docs/**/*.ipynb", "projects/*/*.md", "datasets/*/*.md", "benchmarks/*.md")
DOCUMENTS = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern) if ".ipynb_checkpoints" not in path.parts)
CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]+`", re.M | re.S)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*([^)\s]+)\s*\)")


def markdown(path: Path) -> str:
    """Of a notebook the cells of text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def links(text: str) -> list[str]:
    """The targets of links and pictures outside of code."""
    return LINK.findall(CODE.sub(lambda found: "" if found[0].startswith(("```", "    ", "\t")) else "code", text))


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them: small letters, spaces as dashes, without punctuation; duplicates are numbered."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if number == 0 else f"{slug}-{number}" for slug, count in found.items() for number in range(count + 1)}


def what_is_wrong(target: str, page: Path) -> str | None:
    """Of a link on a document's page; None: nothing. Other sites are looked at, not asked."""
    parts = urlsplit(target)
    if parts.scheme or target.startswith("//"):
        host = parts.hostname or ""
        is_one = parts.scheme in ("http", "https") and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host)
        return None if is_one else "is no address"
    if parts.path.startswith("/"):
        return "is an absolute path"
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not path.is_relative_to(ROOT.resolve()) or not path.exists():
        return "is not in the repository"
    if parts.fragment and unquote(parts.fragment) not in anchors(markdown(path)):
        return "names a heading that is not there"
    return None


def test_what_is_wrong_with_a_link_is_found(tmp_path, monkeypatch):
    """Each kind once; code is no link."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, (c)!\n\n## Twice\n\n## Twice\n\n[x](page.md)\n\n    [y](gone.md)\n\n`[z](gone.md)`\n\n```\n[z](a.md)\n```\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert links(page.read_text()) == ["page.md"] and links("![a [CLS]\nb](x.webp) and [`c`](d.md#e)") == ["x.webp", "d.md#e"]
    assert anchors(page.read_text()) == {"a-b-c", "twice", "twice-1"}
    right = ["page.md", "#a-b-c", "page.md#twice-1", "https://example.org/a_(b)?c#d", "http://images.example.org/x.zip"]
    assert [what_is_wrong(target, page) for target in right] == [None] * len(right)
    wrong = [
        "gone.md",
        "page.md#gone",
        "#twice-2",
        "/page.md",
        "../page.md",
        "https://nowhere",
        "htp://example.org",
        "https:page",
    ]
    assert all(what_is_wrong(target, page) for target in wrong)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_of_a_document_lead_somewhere(page):
    wrong = {target: what_is_wrong(target, page) for target in links(markdown(page))}
    assert not {target: reason for target, reason in wrong.items() if reason}


def test_every_document_can_be_reached_from_the_readme():
    """By links alone, as one who reads it in the repository."""
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        paths = [(page.parent / unquote(urlsplit(target).path)).resolve() for target in links(markdown(page))]
        ahead += [path for path in paths if path in DOCUMENTS and path not in seen]
    assert not {path.relative_to(ROOT).as_posix() for path in DOCUMENTS if path not in seen}


class Built(HTMLParser):
    """A page of the built site: where it leads, and the places in it."""

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.targets.append(value)
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as CI does it, but for the notebook, which a test of its own executes."""
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(package, reason="pip install 'pixelbert_plugin[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "EXECUTE_NOTEBOOKS": "false", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}


def test_every_link_and_anchor_of_the_built_site_leads_somewhere(site):
    pages = {name: Built(path.read_text(encoding="utf-8")) for name, path in site.items() if name.endswith(".html")}
    assert len(pages) > 30 and sum(len(page.targets) for page in pages.values()) > 2000
    root, wrong = "http://site/", []
    for name, page in pages.items():
        for target in page.targets:
            at = urlsplit(urljoin(f"{root}{name}", target))
            if at.hostname != "site" or at.scheme != "http":
                if at.scheme != "data" and not (at.scheme in ("https", "http") and "." in (at.hostname or "")):
                    wrong.append((name, target))
                continue
            path = unquote(at.path).lstrip("/")
            path = path if path in site else f"{path.rstrip('/')}/index.html".lstrip("/")
            if path not in site or (at.fragment and path in pages and unquote(at.fragment) not in pages[path].ids):
                wrong.append((name, target))
    assert not wrong


def text_of(page: Path) -> str:
    """Without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


def rows_of(page: Path) -> dict[str, list[str]]:
    """Of a page's tables, the cells by the first one."""
    rows = re.findall(r"<tr>(.*?)</tr>", page.read_text(encoding="utf-8"), re.S)
    cells = [[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r"<td>(.*?)</td>", row, re.S)] for row in rows]
    return {first: rest for first, *rest in filter(None, cells)}


def test_the_reference_has_every_option_with_type_default_and_comment(site):
    rows = rows_of(site["docs/configuration/index.html"])
    for prefix, config in (("training.", TrainingConfig), ("env.", EnvConfig), ("", RunConfig)):
        for field in dataclasses.fields(config):
            assert f"{prefix}{field.name}" in rows or any(key.startswith(f"{prefix}{field.name}.") for key in rows), field.name
    pairs = "pairs (one text with one image) per update, over all processes"
    assert rows["training.batch_size"] == ["int", "64", pairs]
    assert rows["env.save_dir"] == ["path | None", "null", "run folder. None: save/<config's name>"]
    assert rows["training.early_stop.patience"] == ["int", "5", "evaluations"]
    precision = next(field for field in dataclasses.fields(TrainingConfig) if field.name == "precision")
    assert rows["training.precision"][1] == precision.default
    assert 'href="../precision/"' in site["docs/configuration/index.html"].read_text(encoding="utf-8")
    assert rows["mini/vqa2"] == ["projects/pixelbert/configs/mini/vqa2.yaml", "VQA in miniature"]


def test_the_reference_has_every_component(site):
    page = site["docs/components/index.html"]
    places = Built(page.read_text(encoding="utf-8")).ids
    assert {
        "model-pixelbert",
        "encoder-resnet50",
        "task-nlvr2",
        "optimizer-adamw",
        "builder-flickr30k",
        "precision-apex",
    } <= places
    for kind in registry.KINDS:
        for name in registry.names(kind):
            if registry.origin(kind, name) == "built-in":
                assert f"{kind}-{name}" in places, (kind, name)
    assert rows_of(page)["num_sampled_pixels"][:2] == ["int | None", "null"]
    assert "Pixel-BERT: a CNN's pixels and a text's words through one transformer." in text_of(page)


@pytest.mark.slow
def test_the_notebook_runs_and_is_kept_without_outputs(tmp_path):
    nbformat, nbclient = (
        pytest.importorskip(name, reason="pip install 'pixelbert_plugin[test]'") for name in ("nbformat", "nbclient")
    )
    pytest.importorskip("ipykernel", reason="pip install 'pixelbert_plugin[test]'")
    notebook = nbformat.read(ROOT / "docs/notebooks/ask_a_model.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout")
    assert re.search(r"^red +0\.9", printed) and "circle: blue circle\nrectangle: green rectangle\n" in printed
    assert re.search(r"^blue \(\d+%\); map: \(64, 64\) words: \[CLS\] what color is the circle \? \[SEP\]$", printed, re.M)
    assert "(1, 13) the largest at blue" in printed
    drawn = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(drawn) == 2  # the picture, and where each word looks
