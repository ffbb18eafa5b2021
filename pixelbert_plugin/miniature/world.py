"""The whole world: plan, draw with several processes, and write such that a kill leaves nothing that looks whole."""

import json
import multiprocessing
import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import UserError, writing
from pixelbert_plugin.miniature.draw import write_image
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, Plan
from pixelbert_plugin.miniature.write_coco import plan_coco, plan_flickr30k
from pixelbert_plugin.miniature.write_nlvr2 import plan_nlvr2
from pixelbert_plugin.miniature.write_visual_genome import plan_visual_genome
from pixelbert_plugin.miniature.write_vqa2 import plan_vqa2

SUMMARY = "miniature.json"  # written last: a folder without it holds no whole world
MANIFEST = "miniature_files.txt"  # written first: the files that this command writes, and may delete
SCENES = "miniature_scenes.jsonl"  # the truth: the figures of every image file


def write_world(config: WorldConfig) -> dict[str, Any]:
    """Write the world to `config.out`; returns the summary that miniature.json holds.

    Raises UserError where the folder holds other files, or a world and not `config.overwrite`.
    """
    start = time.monotonic()
    out = Path(config.out)
    plan = make_plan(config)
    paths = [*plan.files, *(item.path for item in plan.pictures), SCENES]
    with writing(out, "out"):
        _prepare(out, paths, config.overwrite)
        _replace(out / MANIFEST, "".join(f"{path}\n" for path in paths))
        for folder in sorted({(out / path).parent for path in paths}):
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in plan.files.items():
            (out / path).write_text(text, encoding="utf-8")
        (out / SCENES).write_text("".join(_truth(item) + "\n" for item in plan.pictures), encoding="utf-8")
        _draw(out, plan.pictures, config.processes or len(os.sched_getaffinity(0)))
        options = {key: value for key, value in asdict(config).items() if key not in ("out", "overwrite", "processes")}
        summary = {"options": options, "counts": plan.counts, "baselines": plan.baselines}
        _replace(out / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary | {"seconds": round(time.monotonic() - start, 1)}


def describe(summary: dict[str, Any]) -> str:
    """The summary in lines for the terminal."""
    lines = [f"{name}: {number}" for name, number in summary["counts"].items()]
    lines += [f"baseline {name}: {json.dumps(values)}" for name, values in summary["baselines"].items()]
    return "\n".join([*lines, f"{summary['seconds']} seconds"])


def make_plan(config: WorldConfig) -> Plan:
    """Everything but the pixels, a function of the config's sizes and seed alone."""
    plan = Plan()
    coco = plan_coco(config, plan)
    flickr = plan_flickr30k(config, plan)
    plan_visual_genome(config, plan, coco, flickr)
    plan_vqa2(config, plan, coco)
    plan_nlvr2(config, plan)
    images = Counter(f"{item.path.split('/')[0]} {item.part} images" for item in plan.pictures)
    plan.counts = {**images, **plan.counts}
    chance = {
        name: round(100 / number, 2) for name, number in (("coco", config.coco_test_images), ("flickr30k", config.flickr_test_images))
    }
    plan.baselines["retrieval_chance_recall_at_1"] = chance
    _check_splits(plan)
    return plan


def _check_splits(plan: Plan) -> None:
    """No scene in two of train, val and test, and no held-out combination where a model trains or chooses."""
    parts = {"restval": "train", "dev": "val", "test1": "test", "test2": "test", "test2015": "test"}
    seen: dict[str, str] = {}
    for item in plan.pictures:
        if item.part == "leaked":
            continue
        split = parts.get(item.part, item.part)
        assert seen.setdefault(item.scene.key(), split) == split, item.path
        allowed = item.part == "test2" or (item.path.startswith("coco") and item.part in ("val", "test"))
        assert allowed or not item.scene.has_held_out(), item.path


def _truth(item: Picture) -> str:
    figures = [
        {
            "shape": figure.shape,
            "color": figure.color,
            "size": figure.size,
            "cell": [figure.row, figure.column],
            "center": [figure.x, figure.y],
            "box": list(figure.box),
        }
        for figure in item.scene.figures
    ]
    size = {"width": item.scene.width, "height": item.scene.height}
    return json.dumps({"path": item.path, "part": item.part, "scene": item.scene.key(), **size, "objects": figures})


def _draw(out: Path, pictures: list[Picture], processes: int) -> None:
    jobs = [(out / item.path, item.scene, item.seed, item.encoding) for item in pictures]
    if processes == 1:
        for job in jobs:
            write_image(*job)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(write_image, jobs, chunksize=64)


def _prepare(out: Path, paths: list[str], overwrite: bool) -> None:
    """Make `out` ready: refuse foreign files; delete what an unfinished make left, or with `overwrite` a whole world."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / MANIFEST
    if (out / SUMMARY).exists() and not overwrite:
        raise UserError(f"out={out}: holds a world already; give another folder, or overwrite=true to replace it")
    if manifest.exists():
        (out / SUMMARY).unlink(missing_ok=True)
        made = [out / line for line in manifest.read_text(encoding="utf-8").splitlines()]
        for path in made:
            path.unlink(missing_ok=True)
        for folder in sorted({parent for path in made for parent in path.parents if out in parent.parents}, reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    elif not overwrite and any(out.iterdir()):
        raise UserError(f"out={out}: is not empty; give a new folder, or overwrite=true to write among the files there")
    clash = next((path for path in paths if (out / path).exists()), None)
    if clash is not None:
        raise UserError(f"out={out}: {clash} is there and was not made by this command; give another folder")


def _replace(path: Path, text: str) -> None:
    """Write whole or not at all."""
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
