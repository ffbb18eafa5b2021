"""Downloads from a server on this machine: whole, cut, changed, damaged, hostile."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pixelbert_plugin.commands import data
from pixelbert_plugin.commands.download import DownloadConfig, download
from pixelbert_plugin.data import downloads
from pixelbert_plugin.data.downloads import Source, get, is_done, mirrored, published
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.system.progress import NoProgress

ROOT = Path(__file__).parents[3]
SETS = ("coco", "flickr30k", "nlvr2", "visual_genome", "visual_genome_qa", "vqa2")


class Server:
    """Answers with `files` by path; keeps what it was asked for. It sends `cut` bytes of an answer at most."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []  # path and Range
        self.cut: int | None = None
        self.status = 200
        self.has_ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.asked.append((self.path, wanted))
                content = outer.files.get(self.path)
                if content is None or outer.status != 200:
                    self.send_error(404 if content is None else outer.status)
                    return
                tag, first = f'"{hashlib.md5(content).hexdigest()}"', 0
                if wanted and outer.has_ranges and self.headers.get("If-Range") == tag:
                    first = int(wanted.removeprefix("bytes=").rstrip("-"))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content) - first))
                self.send_header("ETag", tag)
                self.end_headers()
                end = len(content) if outer.cut is None else first + outer.cut
                self.wfile.write(content[first:end])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "WAIT", 0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = Server()
    yield found
    found.server.shutdown()
    found.server.server_close()


def archive(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return content.getvalue()


def fetch(source: Source, folder: Path, keep: bool = False) -> None:
    get(source, folder, None, keep, NoProgress())


CONTENT = bytes(range(256)) * 40


def test_a_plain_file(server, tmp_path):
    server.files["/a/train.json"] = CONTENT
    source = Source(f"{server.url}/a/train.json", to="set/data/train.json")
    assert not is_done(source, tmp_path)
    fetch(source, tmp_path)
    assert (tmp_path / "set/data/train.json").read_bytes() == CONTENT and is_done(source, tmp_path)
    assert list((tmp_path / downloads.FOLDER).iterdir()) == []


def test_a_cut_one_goes_on_where_it_stopped(server, tmp_path):
    """Each answer breaks off after 4,000 bytes: three are asked for, from 0, 4,000 and 8,000 on."""
    server.files["/train.json"], server.cut = CONTENT, 4000
    fetch(Source(f"{server.url}/train.json", to="train.json"), tmp_path)
    assert (tmp_path / "train.json").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=4000-", "bytes=8000-"]


def test_another_command_goes_on_too(server, tmp_path, monkeypatch):
    server.files["/train.json"], server.cut = CONTENT, 4000
    monkeypatch.setattr(downloads, "TRIES", 1)
    source = Source(f"{server.url}/train.json", to="train.json")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch(source, tmp_path)
    monkeypatch.undo()
    server.cut = None
    fetch(source, tmp_path)
    assert (tmp_path / "train.json").read_bytes() == CONTENT and server.asked[-1] == ("/train.json", "bytes=4000-")


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_part_of_what_has_changed_since_is_not_gone_on_with(server, tmp_path, has_ranges, monkeypatch):
    folder = tmp_path / downloads.FOLDER
    folder.mkdir()
    (folder / "train.json.part").write_bytes(b"old" * 100)
    (folder / "train.json.part.json").write_text('{"validator": "\\"old\\"", "total": 9999}')
    server.files["/train.json"], server.has_ranges = CONTENT, has_ranges
    fetch(Source(f"{server.url}/train.json", to="train.json"), tmp_path)
    assert (tmp_path / "train.json").read_bytes() == CONTENT


def test_an_archive_is_checked_unpacked_and_not_fetched_twice(server, tmp_path):
    content = archive(**{"train2014/a.jpg": b"a", "train2014/b.jpg": b"b", "__MACOSX/train2014/._a": b"", "readme": b""})
    server.files["/train2014.zip"] = content
    source = Source(
        f"{server.url}/train2014.zip", unpack={"train2014/": "coco/train2014/"}, sha256=hashlib.sha256(content).hexdigest()
    )
    fetch(source, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "coco/train2014").iterdir()} == {"a.jpg": b"a", "b.jpg": b"b"}
    assert is_done(source, tmp_path) and not (tmp_path / downloads.FOLDER / "train2014.zip").exists()
    more = Source(source.url, unpack={"readme": "coco/readme"}, sha256=source.sha256)  # another set takes other members
    assert not is_done(more, tmp_path)
    fetch(more, tmp_path, keep=True)
    assert (tmp_path / "coco/readme").is_file() and (tmp_path / downloads.FOLDER / "train2014.zip").read_bytes() == content
    (tmp_path / "coco/readme").unlink()
    asked = len(server.asked)
    fetch(more, tmp_path)  # from the archive that was kept
    assert (tmp_path / "coco/readme").is_file() and len(server.asked) == asked


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"something else", {"sha256": "0" * 64}, "its SHA-256 is [0-9a-f]{64}, published is 0000"),
        (b"<!doctype html><html>", {"sha256": "0" * 64}, "is a web page, not the file itself"),
        (b"<html>moved</html>", {}, "is a web page, not the file itself"),
        (archive(a=b"x" * 100)[:-30], {}, "is no zip archive"),
        (archive(b=b"x"), {}, "its archive has no 'a'; is it published otherwise now"),
    ],
)
def test_what_is_not_the_published_file_is_refused(server, tmp_path, content, options, message):
    server.files["/x.zip"] = content
    with pytest.raises(UserError, match=message):
        fetch(Source(f"{server.url}/x.zip", unpack={"a": "set/a"}, **options), tmp_path)
    assert not (tmp_path / "set").exists()


def test_a_damaged_member(server, tmp_path):
    content = bytearray(archive(a=b"x" * 1000))
    content[200] ^= 1
    server.files["/x.zip"] = bytes(content)
    with pytest.raises(UserError, match="its archive is damaged"):
        fetch(Source(f"{server.url}/x.zip", unpack={"a": "set/a"}), tmp_path)
    assert not (tmp_path / "set/a").exists() and not (tmp_path / downloads.FOLDER / "x.zip.part").exists()


def test_members_that_lead_out_of_the_folder(server, tmp_path):
    server.files["/x.zip"] = archive(**{"a/../../evil": b"x"})
    with pytest.raises(UserError, match="leads out of its folder"):
        fetch(Source(f"{server.url}/x.zip", unpack={"a/": "set/a/"}), tmp_path / "data")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "data/evil").exists()


def test_a_server_that_fails(server, tmp_path):
    source = Source(f"{server.url}/x.json", to="x.json")
    with pytest.raises(UserError, match=r"the server says 404 Not Found; is it published elsewhere now"):
        fetch(source, tmp_path)
    assert len(server.asked) == 1
    server.files["/x.json"], server.status = CONTENT, 503
    with pytest.raises(UserError, match=r"cannot be fetched \(the server says 503 .*the same command goes on where it stopped"):
        fetch(source, tmp_path)
    assert len(server.asked) == 1 + downloads.TRIES
    with pytest.raises(UserError, match=r"cannot be fetched \(.*refused"):
        fetch(Source("http://127.0.0.1:9/x.json", to="x.json"), tmp_path)


def test_a_full_disk_is_noticed_before(server, tmp_path, monkeypatch):
    server.files["/x.json"] = CONTENT
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"GB are needed and 0\.0 GB are free; free space, or set data_dir"):
        fetch(Source(f"{server.url}/x.json", to="x.json"), tmp_path)


def test_the_lists_of_the_official_sets():
    for name in SETS:
        found = published(name, ROOT / "datasets")
        assert found.files and all(
            source.url.startswith(("https://", "http://images.cocodataset.org/")) for source in found.files
        )
        assert all(source.sha256 is None or len(source.sha256) == 64 for source in found.files)
        assert all((source.to is None) != (not source.unpack) for source in found.files)
    assert {name for name in SETS if published(name, ROOT / "datasets").on_request} == {"flickr30k", "nlvr2"}
    with pytest.raises(UserError, match=r"download 'vqa': no such data set; did you mean vqa2\?"):
        published("vqa", ROOT / "datasets")


def test_what_is_fetched_is_what_the_configurations_read():
    """Every path that the data sets' defaults name below the data folder is the target of a list, or is on request."""
    import yaml

    for name in SETS:
        found = published(name, ROOT / "datasets")
        targets = [target for source in found.files for target in source.targets] + [asked.needs for asked in found.on_request]
        options = yaml.safe_load((ROOT / f"datasets/{name}/defaults.yaml").read_text())["dataset_config"][name]
        named = {text.partition("{")[0] for text in _texts(options) if "/" in text}
        assert named and all(any(path.startswith(target.rstrip("/")) for target in targets) for path in named), name


def _texts(node) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in _texts(value)]
    return (
        [text for value in node for text in _texts(value)]
        if isinstance(node, list)
        else [node]
        if isinstance(node, str)
        else []
    )


def test_the_command_with_a_mirror(server, tmp_path, capsys):
    found = published("nlvr2", ROOT / "datasets")
    for source in found.files:
        server.files[mirrored(source.url, "")] = source.name.encode()
    assert data.main(["download", "nlvr2", f"data_dir={tmp_path}", f"mirror={server.url}"]) == 0
    told = capsys.readouterr().out
    assert told.count("fetched ") == 8 and "on request  the images" in told and "lil-lab/nlvr/tree/master/nlvr2" in told
    assert (tmp_path / "nlvr2/data/balanced/balanced_dev.json").read_text() == "balanced_dev.json"
    asked = len(server.asked)
    assert download("nlvr2", DownloadConfig(data_dir=str(tmp_path), mirror=server.url)).count("there       ") == 8
    assert len(server.asked) == asked


def test_the_command_lists_and_refuses(capsys, tmp_path):
    assert data.main(["download", "vqa2", "list=true", f"data_dir={tmp_path}"]) == 0
    assert "13,511 MB → coco/train2014/" in capsys.readouterr().out
    for options, message in (
        (["vqa"], "did you mean vqa2?"),
        ([], "download takes the name of one data set"),
        (["vqa2", "coco"], "download takes the name of one data set, such as vqa2, not vqa2 coco"),
        (["coco", "only=[train.zip]"], "only: 'train.zip': coco has no such file; did you mean"),
        (["coco", "dir=x"], "dir: unknown key"),
    ):
        assert data.main(["download", *options]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
