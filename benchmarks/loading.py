"""Start-up and memory of Visual Genome's and COCO's annotations at full size, on generated files of the official formats.

    python benchmarks/loading.py [--scale 1.0] [--folder FOLDER] > benchmarks/loading.txt

Each way of loading runs in a process of its own: the blocks without a cache, writing it, and from it; and the naive way,
json.load and a list of Sample, on a tenth of the pairs. Then two forked workers read samples at random, as a data loader's do.
Memory is what a process has more than after its imports; files are in the page cache. Needs 1.5 GB of disk and 3 GB of memory.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_IMAGES, REGIONS = 108_077, 50  # Visual Genome: 5.4 M regions
NUM_TRAIN, NUM_VAL, CAPTIONS = 82_783, 40_504, 5  # COCO: 616,435 captions, of which 566,435 in Karpathy's train and restval
NAIVE_SHARE, TINY_SHARE = 0.1, 0.001
READS = 300_000  # samples that each worker reads
WORDS = "a the man wearing white shirt on table green grass with blue sky window tree standing behind".split()


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


def write_list(path: Path, records, head: str = "[", tail: str = "]") -> None:
    """Records as one JSON array between `head` and `tail`, written one by one."""
    with path.open("w", encoding="utf-8") as file:
        file.write(head)
        for index, record in enumerate(records):
            file.write((", " if index else "") + json.dumps(record))
        file.write(tail)


def make_visual_genome(folder: Path, num_images: int) -> None:
    draw = random.Random(1)
    folder.mkdir(parents=True)

    def images():
        for image in range(1, num_images + 1):
            url = f"https://cs.stanford.edu/people/rak248/VG_100K{'_2' * (image % 3 == 0)}/{image}.jpg"
            coco_id = 3 * image if image % 2 else None
            yield {"width": 800, "url": url, "height": 600, "image_id": image, "coco_id": coco_id, "flickr_id": None}

    def regions():
        for image in range(1, num_images + 1):
            yield {
                "regions": [
                    {
                        "region_id": image * REGIONS + number,
                        "width": draw.randrange(400),
                        "height": draw.randrange(400),
                        "image_id": image,
                        "phrase": text(draw, draw.randint(3, 7)),
                        "y": draw.randrange(400),
                        "x": draw.randrange(400),
                    }
                    for number in range(REGIONS)
                ],
                "id": image,
            }

    write_list(folder / "image_data.json", images())
    write_list(folder / "region_descriptions.json", regions())


def make_coco(folder: Path, num_train: int, num_val: int) -> None:
    draw = random.Random(2)
    (folder / "annotations").mkdir(parents=True)
    years = {"train2014": range(1, 3 * num_train, 3), "val2014": range(2, 3 * num_val, 3)}
    karpathy = []
    for year, ids in years.items():
        files = [{"id": image, "file_name": f"COCO_{year}_{image:012d}.jpg", "height": 480, "width": 640} for image in ids]
        captions = [{"image_id": image, "id": image * CAPTIONS + number} for image in ids for number in range(CAPTIONS)]
        draw.shuffle(captions)
        for caption in captions:
            caption["caption"] = text(draw, draw.randint(8, 13))
        path = folder / f"annotations/captions_{year}.json"
        write_list(path, files, '{"info": {}, "images": [', '], "annotations": ')
        write_list(folder / "part.json", captions, "[", "]}")
        with path.open("a", encoding="utf-8") as file:
            file.write((folder / "part.json").read_text(encoding="utf-8"))
        (folder / "part.json").unlink()
        for place, image in enumerate(ids):
            held_out = {0: "val", 1: "test"}.get(place * 8 // len(ids), "restval")
            sentences = [{"raw": (raw := text(draw, 10)), "tokens": raw.split(), "imgid": image, "sentid": n} for n in range(5)]
            record = {"filepath": year, "filename": f"COCO_{year}_{image:012d}.jpg", "cocoid": image, "imgid": len(karpathy)}
            karpathy.append({**record, "split": "train" if year == "train2014" else held_out, "sentences": sentences})
    write_list(folder / "dataset_coco.json", karpathy, '{"images": [', '], "dataset": "coco"}')


def build_mixture(root: Path, cache: Path | None):
    """The train mixture of both data sets, as their defaults.yaml describe them."""
    import yaml

    from pixelbert_plugin import registry
    from pixelbert_plugin.data.mixture import Mixture

    builders = {}
    for name in ("coco", "visual_genome"):
        file = Path(__file__).parent.parent / "datasets" / name / "defaults.yaml"
        options = yaml.safe_load(file.read_text(encoding="utf-8"))["dataset_config"][name]
        if name == "visual_genome":
            options.update(exclude_coco=None, exclude_flickr30k=None)  # so that all 5.4 M are loaded
        builders[name] = registry.build("builder", name, options, f"dataset_config.{name}", data_dir=root, cache_dir=cache)
    mixture = Mixture.build(builders, "train")
    _ = mixture.images_M
    return mixture


def build_naive(root: Path) -> list:
    """A list of Sample: json.load, then one loop."""
    from pixelbert_plugin.types import Sample

    samples = []
    for year in ("train2014", "val2014"):
        content = json.loads((root / f"coco/annotations/captions_{year}.json").read_text(encoding="utf-8"))
        files = {image["id"]: root / "coco" / year / image["file_name"] for image in content["images"]}
        for item in content["annotations"]:
            image = item["image_id"]
            samples.append(Sample(sample_id=item["id"], image_ids=(image,), images=(files[image],), text=item["caption"]))
    for record in json.loads((root / "visual_genome/region_descriptions.json").read_text(encoding="utf-8")):
        file = root / f"visual_genome/VG_100K/{record['id']}.jpg"
        samples += [
            Sample(sample_id=region["region_id"], image_ids=(record["id"],), images=(file,), text=region["phrase"])
            for region in record["regions"]
        ]
    return samples


def memory(pid: int | str, file: str, name: str) -> float:
    """MiB of the line `name` of /proc/<pid>/<file>."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def measure(way: str, root: Path, cache: Path) -> dict[str, float]:
    """Load in one way; then fork workers that read samples at random."""
    from pixelbert_plugin.data import mixture as _  # noqa: F401 the imports are no part of the figures
    from pixelbert_plugin.data.builders import coco, visual_genome  # noqa: F401 nor are these

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = memory("self", "status", "VmRSS"), time.perf_counter()
    is_cached = way in ("first cache", "cache")
    samples = build_naive(root) if way == "naive" else build_mixture(root, cache if is_cached else None)
    seconds, peak = time.perf_counter() - start, memory("self", "status", "VmHWM") - before
    result = {"samples": len(samples), "seconds": seconds, "peak": peak, "held": memory("self", "status", "VmRSS") - before}
    read(samples, seed=-1)  # so that this process too has mapped the blocks' pages: what workers add then is theirs alone
    alone = memory("self", "smaps_rollup", "Pss")
    result["worker"] = (total_pss_with_workers(samples, workers=2) - alone) / 2
    return result


def read(samples, seed: int) -> None:
    """READS samples at random."""
    draw = random.Random(seed)
    for _ in range(READS):
        repr(samples[draw.randrange(len(samples))])  # touches every field


def total_pss_with_workers(samples, workers: int) -> float:
    """MiB of this process and its forked workers together, when each has read READS samples."""
    done, release = os.pipe(), os.pipe()
    pids = []
    for worker in range(workers):
        pid = os.fork()
        if pid == 0:
            read(samples, worker)
            os.write(done[1], b"x")
            os.read(release[0], 1)
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        os.read(done[0], 1)
    total = sum(memory(pid, "smaps_rollup", "Pss") for pid in ("self", *pids))
    os.write(release[1], b"x" * workers)
    for pid in pids:
        os.waitpid(pid, 0)
    return total


def run(way: str, root: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", way, "--folder", str(root), "--cache", str(cache)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def report(results: dict[str, dict[str, float]], sizes: dict[str, float], scale: float) -> str:
    measured = results["naive"]
    factor = results["no cache"]["samples"] / measured["samples"]
    naive = {key: value * factor for key, value in measured.items()}
    lines = [
        f"COCO (train, restval) and Visual Genome, {results['no cache']['samples']:,} pairs; files at {scale:g} × full size:",
        ", ".join(f"{name} {size:,.0f} MB" for name, size in sizes.items()),
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPU cores, files in the page cache",
        "",
        f"{'':<27}{'':>9}{'':>12}{'':>12}{'each':>13}{'naive / this':>22}",
        f"{'way':<27}{'start-up':>9}{'peak':>12}{'held':>12}{'worker':>13}{'start-up':>13}{'peak':>9}",
    ]
    titles = {
        "tiny": "blocks of 1/1000",
        "naive": f"naive, a list (× {factor:.1f})",
        "no cache": "blocks, no cache",
        "first cache": "blocks, writing the cache",
        "cache": "blocks, from the cache",
    }
    for way, title in titles.items():
        row = naive if way == "naive" else results[way]
        figures = f"{row['seconds']:>7.1f} s{row['peak']:>8,.0f} MiB{row['held']:>8,.0f} MiB{row['worker']:>9,.1f} MiB"
        ratios = "" if way == "tiny" else f"{naive['seconds'] / row['seconds']:>13.1f}{naive['peak'] / row['peak']:>9.1f}"
        lines.append(f"{title:<27}{figures}{ratios}")
    lines += [
        "",
        "start-up: the mixture is built and its images are numbered. peak, held: resident memory beyond that after the",
        "imports; from the cache it is mostly pages of files, which the system may drop. each worker: what each of two",
        "forked workers adds to the proportional set size of all three processes when each of them has read",
        f"{READS:,} samples at random; the first row is what a worker's Python takes for itself.",
        f"The naive way (json.load, a list of Sample) was measured on {measured['samples']:,} pairs and is multiplied:",
        f"{measured['seconds']:.1f} s, {measured['peak']:,.0f} MiB at the peak, {measured['worker']:,.0f} MiB each worker.",
        "It reads no Karpathy file, checks nothing and keeps every image; each of its workers reads half of its samples.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.cache)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        roots = {name: Path(folder) / name for name in ("full", "tenth", "tiny")}
        for root, share in zip(roots.values(), (1, NAIVE_SHARE, TINY_SHARE), strict=True):
            share *= options.scale
            make_visual_genome(root / "visual_genome", max(64, int(NUM_IMAGES * share)))
            make_coco(root / "coco", max(64, int(NUM_TRAIN * share)), max(64, int(NUM_VAL * share)))
        files = sorted(roots["full"].rglob("*.json"), key=lambda path: -path.stat().st_size)
        sizes = {path.name: path.stat().st_size / 1e6 for path in files}
        ways = {"tiny": "tiny", "naive": "tenth", "no cache": "full", "first cache": "full", "cache": "full"}
        results = {way: run(way, roots[root], Path(folder) / "cache") for way, root in ways.items()}
    print(report(results, sizes, options.scale))


if __name__ == "__main__":
    main()
