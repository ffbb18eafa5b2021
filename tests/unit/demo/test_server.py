"""The page as it is served: by hand, by Gradio's client, several at once."""

import pytest

pytest.importorskip("gradio", minversion="6.27", reason="gradio is not installed: pip install -e '.[demo]'")

import http.client
import json
import os
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from pixelbert_plugin import UserError
from pixelbert_plugin.demo.server import OUTSIDE, serving
from pixelbert_plugin.demo.visits import Visits

QUESTION = "is the disc red or blue"
LOADED = re.compile(
    r"""<(?:link|script|img|iframe|meta)\b[^>]*(?:src|href|content)=["'](https?://[^"']*)|url\((https?://[^)]*)"""
)


@pytest.fixture(scope="module")
def connections():
    """The addresses outside this machine that anything in this process connects to meanwhile."""
    found, own = [], socket.socket.connect

    def connect(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1", "localhost")):
            found.append(address)
        return own(self, address)

    socket.socket.connect = connect
    yield found
    socket.socket.connect = own


@pytest.fixture(scope="module")
def served(models, connections):
    """A page of VQA's with uploads of at most 0.1 MB: its address."""
    with serving(Visits(models["vqa"], 3), "save/mine", "127.0.0.1", 0, 0.1) as address:
        yield address
    assert not connections, "nothing of the page may speak to another machine"


def get(address: str, path: str, accept: str = "*/*") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("GET", path, headers={"Accept": accept, "Accept-Encoding": "br, gzip"})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def upload(address: str, name: str, content: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    body = head.encode() + content + b"\r\n--b--\r\n"
    connection.request("POST", "/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=b"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def ask(address: str, *given, way: str = "answer") -> tuple[str, object]:
    """The last event's name and its data, as the page has them."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    body = json.dumps({"data": given})
    connection.request("POST", f"/gradio_api/call/{way}", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        return str(answer.status), content.decode()
    connection.request("GET", f"/gradio_api/call/{way}/{json.loads(content)['event_id']}")
    events = re.findall(r"event: (\w+)\ndata: (.*)\n", connection.getresponse().read().decode())
    return events[-1][0], json.loads(events[-1][1])


def a_file(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_nothing_is_loaded_from_elsewhere(served):
    status, headers, page = get(served, "/", "text/html")
    assert status == 200 and b"<gradio-app" in page and int(headers["content-length"]) == len(page)
    assert LOADED.findall(page.decode()) == []
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self' data: blob:" and "http" not in headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="(\./[^"]*|/[^"]*\.(?:js|css))"', page.decode())
    assert len(loaded) >= 2
    for path in ["/theme.css", *loaded]:
        status, headers, content = get(served, "/" + path.lstrip("./"), "text/css")
        assert status == 200 and "content-security-policy" in headers
        if path.endswith(".css") and "content-encoding" not in headers:
            assert LOADED.findall(content.decode()) == [] and b"@import" not in content


def test_what_is_taken_out_of_the_page():
    page = (
        b'<link rel="preconnect" href="https://fonts.googleapis.com" /><link rel="stylesheet" href="./a.css">'
        b'<script src="https://cdnjs.cloudflare.com/x.js" async></script><script>let x = "https://example.org"</script>'
        b'<meta property="og:image" content="https://x.org/i.png"/><meta charset="utf-8">'
    )
    kept = b'<link rel="stylesheet" href="./a.css"><script>let x = "https://example.org"</script><meta charset="utf-8">'
    assert OUTSIDE.sub(b"", page) == kept


@pytest.mark.slow
def test_several_visitors_ask_at_once(served, models, pictures):
    shown: dict[int, tuple[str, object]] = {}

    def visit(number: int) -> None:
        status, path = upload(served, f"{number}.png", pictures[number % 7].read_bytes())
        assert status == 200
        shown[number] = ask(served, a_file(json.loads(path)[0]), QUESTION)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    visits = Visits(models["vqa"], 3)
    for number in range(10):
        event, data = shown[number]
        assert event == "complete" and data[0] == visits.answer(str(pictures[number % 7]), QUESTION).html


@pytest.mark.slow
@pytest.mark.parametrize("task", ["retrieval", "nlvr2", "pretrain"])
def test_what_else_can_be_asked(models, pictures, connections, task):
    model, folder = models[task], pictures[0].parent
    gallery = model.gallery(folder) if task == "retrieval" else None
    visits, masked = Visits(model, 3, gallery, folder), "a [MASK] disc"
    with serving(visits, "save/mine", "127.0.0.1", 0, 1) as address:
        path = json.loads(upload(address, "0.png", pictures[0].read_bytes())[1])[0]
        other = json.loads(upload(address, "1.png", pictures[1].read_bytes())[1])[0]
        if task == "nlvr2":
            found = {"compare": ask(address, a_file(path), a_file(other), QUESTION, way="compare")}
            expected = {"compare": visits.compare(path, other, QUESTION)}
        elif task == "retrieval":
            found = {"search": ask(address, QUESTION, way="search"), "match": ask(address, a_file(path), QUESTION, way="match")}
            expected = {"search": visits.search(QUESTION), "match": visits.match(path, QUESTION)}
        else:
            found = {"fill": ask(address, a_file(path), masked, way="fill")}
            expected = {"fill": visits.fill(path, masked)}
    for way, shown in expected.items():
        event, data = found[way]
        assert event == "complete" and data[0] == shown.html
        if (
            shown.look is not None
        ):  # then the state, which is none of the visitor's, what can be looked at and the answer's look
            assert data[-1] == shown.look.html(0)
            assert [choice[0] for choice in data[-2]["choices"]] == list(shown.look.words)


def test_a_visitor_asks(served, models, pictures):
    path = json.loads(upload(served, "0.png", pictures[0].read_bytes())[1])[0]
    event, data = ask(served, a_file(path), QUESTION)
    assert event == "complete" and data[0] == Visits(models["vqa"], 3).answer(str(pictures[0]), QUESTION).html


def test_what_is_too_large_or_no_picture_is_told(served):
    status, told = upload(served, "large.png", bytes(150_000))
    assert status == 413 and "100000" in told  # Gradio's own limit, on a file
    status, told = upload(served, "huge.png", bytes(1_200_000))
    assert status == 413 and told == "a file may have at most 0.1 MB"  # ours, on a request
    status, path = upload(served, "text.png", b"no picture")
    assert status == 200
    event, data = ask(served, a_file(json.loads(path)[0]), QUESTION)
    assert event == "error" and "text.png: not a readable image (10 bytes; no known image format)" in json.dumps(data)


def test_files_of_the_machine_are_not_given_away(served, tmp_path, pictures):
    secret = tmp_path / "secret.png"
    Image.open(pictures[0]).rotate(90).save(secret)
    for place in (secret, Path(__file__), "/etc/passwd"):
        assert get(served, f"/gradio_api/file={place}")[0] in (403, 404)
        for asked in ((a_file(str(place)), QUESTION), (None, a_file(str(place)))):
            event, data = ask(served, *asked)
            assert event == "error" and "bars" not in json.dumps(data)
    kept = [path.read_bytes() for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]
    assert secret.read_bytes() not in kept and Path("/etc/passwd").read_bytes() not in kept


def test_an_address_of_another_machine_is_not_fetched(served, connections):
    picture = {"path": "http://192.0.2.1/cat.png", "url": "http://192.0.2.1/cat.png", "meta": {"_type": "gradio.FileData"}}
    for asked in ((picture, QUESTION), (None, picture)):
        event, data = ask(served, *asked)
        assert event == "error" and "a picture must be uploaded first" in json.dumps(data) and not connections


def test_uploads_are_gone_in_the_end(models, pictures, served):
    former = os.environ["GRADIO_TEMP_DIR"]
    with serving(Visits(models["vqa"], 3), "save/mine", "127.0.0.1", 0, 1) as address:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        status, path = upload(address, "cat.png", pictures[0].read_bytes())
        assert status == 200 and Path(json.loads(path)[0]).is_relative_to(folder) and folder.is_dir()
        with (
            pytest.raises(UserError) as error,
            serving(Visits(models["vqa"], 3), "save/mine", "127.0.0.1", urlsplit(address).port, 1),
        ):
            pass
        told = f"host='127.0.0.1' port={urlsplit(address).port}: address already in use; port=0 takes one that is free"
        assert str(error.value) == told
    assert not folder.exists() and os.environ["GRADIO_TEMP_DIR"] == former
    nowhere = serving(Visits(models["vqa"], 3), "save/mine", "no.such.host.invalid", 7860, 1)
    with pytest.raises(UserError, match=r"host='no\.such\.host\.invalid' port=7860: "), nowhere:
        pass
