"""Data that change, rot or lead astray, and workers without room to hand them over."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fault_disks import last
from fault_table import Bench, Row
from fault_tools import INTERVAL, Course, ended, flip, is_one_line, wait_until

NUM_FLIPS = 300
DECODE = """
import random, sys, tempfile
from pathlib import Path
from pixelbert_plugin import registry
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.data.images import BadImageError
plugins.load()
image = registry.build("processor", "image", {"short_edge": 64, "long_edge": 96}, "processors.image.params")
files, draw, read, refused = [Path(name) for name in sys.argv[2:]], random.Random(1), 0, 0
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "damaged.png"
    for number in range(int(sys.argv[1])):
        content = bytearray(files[number % len(files)].read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            image.decode(path)
            read += 1
        except BadImageError:
            refused += 1
print(read, refused)
"""


def image(bench: Bench) -> Iterator[Row]:
    course = bench.course("image", bench.updates)
    process = course.start()
    wait_until(lambda: course.update() >= INTERVAL + 2, process)
    images = sorted((bench.data / "coco").rglob("*.jpg"))
    kept = {path: path.read_bytes() for path in images}
    for path in images:
        path.write_bytes(kept[path][:100])
    status, reached = ended(process), course.update()
    for path, content in kept.items():
        path.write_bytes(content)
    told = "not a readable image" in course.output()
    yield bench.row(
        "images rot during the run, then are restored",
        course,
        1,
        int(told and status != 0),
        reached - course.saved_update(),
    )


def png(bench: Bench) -> Iterator[Row]:
    """Bits of PNG files flipped one at a time; the files are decoded in a process of their own."""
    files = sorted((bench.data / "nlvr2").rglob("*.png"))[:10]
    done = subprocess.run([sys.executable, "-c", DECODE, str(NUM_FLIPS), *files], capture_output=True, text=True, check=False)
    read, refused = map(int, done.stdout.split()) if done.returncode == 0 else (0, 0)
    note = f"{read} were decoded all the same, {refused} refused by name; exit status {done.returncode}"
    yield Row("one bit flipped in a PNG", NUM_FLIPS, read + refused, None, None, note)


def changed(bench: Bench) -> Iterator[Row]:
    """Annotations, or images, are not those that the run was stopped with."""
    for what in ("annotations", "images"):
        data = bench.folder / f"changed_{what}_world"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(bench.data, data)
        course = Course(data, bench.folder / f"changed_{what}", 1, [f"training.max_updates={bench.updates}"])
        process = course.start()
        wait_until(lambda course=course: course.update() > INTERVAL, process)
        process.terminate()
        ended(process)
        if what == "annotations":
            path = next((data / "vqa2").glob("*train2014_questions.json"))
            path.write_text(path.read_text().replace("?", " now?", 1))
        else:
            for path in sorted((data / "coco").rglob("*.jpg")):
                path.write_bytes(flip(path.read_bytes(), 0.9))
        status = course.finish()
        told = [line for line in course.said().splitlines() if "changed since" in line]
        note = f"exit status {status}: {told[0][:150] if told else 'nothing was said'}"
        yield Row(f"{what} changed between a stop and a resume", 1, int(bool(told)), None, None, note)


def astray(bench: Bench) -> Iterator[Row]:
    """Image names that lead out of the images' folder."""
    for name in ("../../../etc/hostname", "/etc/hostname"):
        data = bench.folder / "astray_world"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        for part in bench.data.iterdir():
            (data / part.name).symlink_to(part)
        (data / "flickr30k").unlink()
        shutil.copytree(bench.data / "flickr30k", data / "flickr30k")
        path = next((data / "flickr30k").glob("dataset*.json"))
        content = json.loads(path.read_text())
        content["images"][0]["filename"] = name
        path.write_text(json.dumps(content))
        config = "projects/pixelbert/configs/mini/flickr30k_retrieval.yaml"
        options = ["training.max_updates=1", "training.batch_size=2", "training.micro_batch_size=2"]
        options.append("task_config.retrieval={num_negatives: 3, num_hardest: 2}")
        course = Course(data, bench.folder / "astray", 1, options, config=config)
        status = course.finish()
        right = status == 2 and is_one_line(course.said()) and name in course.said()
        yield Row(f"an image named {name} in the annotations", 1, int(right), None, None, last(course))


def index(bench: Bench) -> Iterator[Row]:
    """The index of sharded weights names a file outside its folder."""
    folder = bench.folder / "sharded"
    folder.mkdir(exist_ok=True)
    shutil.copy(bench.data / "resnet18.safetensors", bench.folder / "outside.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 128, "num_hidden_layers": 1}))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "../outside.safetensors"}})
    )
    course = bench.course("sharded_run", 1, 1)
    course.options.append(f"model_config.pixelbert.text_encoder.params.weights={folder}")
    status = course.finish()
    right = status == 2 and is_one_line(course.said()) and "'../outside.safetensors'" in course.said()
    yield Row("an index of sharded weights that leads out of its folder", 1, int(right), None, None, last(course))


def shared_memory(bench: Bench) -> Iterator[Row]:
    """Docker's 64 MB of /dev/shm, and 1 MB, with workers that hand over photographs of 800 × 1333 pixels."""
    data = bench.folder / "large_world"
    if not data.exists():
        shutil.copytree(bench.data, data)
        enlarge(data / "coco")
    for size in ("64m", "1m"):
        mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
        course = Course(data, bench.folder / f"shared_memory_{size}", 1, ["training.max_updates=2"])
        course.before = ["unshare", "-m", "sh", "-c", mount, "sh"]
        course.options += ["processors.image.params.short_edge=800", "processors.image.params.long_edge=1333"]
        course.options += ["run_type=train", "training.micro_batch_size=8", "training.num_workers=2"]
        status = ended(course.start(), 400)
        if "unshare" in course.said() or "mount:" in course.said():
            print("shared_memory: /dev/shm cannot be mounted here (needs root); left out", file=sys.stderr)
            return
        told = is_one_line(course.said()) and "/dev/shm" in course.said()
        note = "trained" if status == 0 else last(course)
        yield Row(f"{size}B of /dev/shm, images of 800 x 1333", 1, int(status == 0 or told), None, None, note)


def enlarge(folder: Path) -> None:
    from PIL import Image

    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            image.convert("RGB").resize((1333, 800)).save(path)
