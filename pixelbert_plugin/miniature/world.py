"""The whole world: plan, draw with several processes, and write such that a kill leaves nothing that looks whole."""

import json
import multiprocessing
import signal
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixelbert_plugin.errors import UserError, replacing
from pixelbert_plugin.miniature.coco import plan_coco
from pixelbert_plugin.miniature.draw import write_image
from pixelbert_plugin.miniature.flickr30k import plan_flickr30k
from pixelbert_plugin.miniature.nlvr2 import plan_nlvr2
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, Plan
from pixelbert_plugin.miniature.visual_genome import plan_visual_genome
from pixelbert_plugin.miniature.visual_genome_qa import plan_visual_genome_qa
from pixelbert_plugin.miniature.vocabulary import plan_vocabulary
from pixelbert_plugin.miniature.vqa2 import plan_vqa2
from pixelbert_plugin.system.linux import num_cores

SUMMARY = "miniature.json"  # written last: a folder without it holds no whole world
MANIFEST = "miniature_files.txt"  # written first: the files that this command writes, and may delete
SCENES = "miniature_scenes.jsonl"  # the truth: the figures of every image file


def write_world(config: WorldConfig) -> dict[str, Any]:
    """Write the world to `config.out`; returns the summary that miniature.json holds, and the seconds taken.

    Raises UserError where the folder holds other files, or a world and not `config.overwrite`, or cannot be written.
    """
    start = time.monotonic()
    out = Path(config.out)
    try:
        _refuse_other_files(out, config.overwrite)
        plan = make_plan(config)
        _write(out, plan, config)
        if config.backbone_updates:
            from pixelbert_plugin.miniature.backbone import write_backbone  # torch is not needed for the rest

            plan.baselines["backbone"] = {
                file: round(100 * write_backbone(out / file, config, side), 1) for side, file in config.backbones().items()
            }
        sizes = {key: value for key, value in asdict(config).items() if key not in ("out", "overwrite", "processes")}
        summary = {"options": sizes, "counts": plan.counts, "baselines": plan.baselines}
        _write_whole(out / SUMMARY, json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"out={out}: cannot be written ({reason}); free space or give another folder") from error
    return summary | {"seconds": round(time.monotonic() - start, 1)}


def _write(out: Path, plan: Plan, config: WorldConfig) -> None:
    """All but the summary. The list of files comes first, so that what a kill leaves behind can be told and deleted."""
    paths = [*plan.files, *(item.path for item in plan.pictures), SCENES, *config.backbones().values()]
    made = _made_files(out)
    clash = next((path for path in paths if path not in made and (out / path).exists()), None)
    if clash is not None:
        raise UserError(f"out={out}: {clash} is there and was not made by this command; give another folder")
    _delete(out, made)
    _write_whole(out / MANIFEST, "".join(f"{path}\n" for path in paths))
    for folder in sorted({(out / path).parent for path in paths}):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in plan.files.items():
        (out / path).write_text(text, encoding="utf-8")
    (out / SCENES).write_text("".join(_truth(item) + "\n" for item in plan.pictures), encoding="utf-8")
    _draw(out, plan.pictures, config.processes or num_cores())


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
    genome = plan_visual_genome(config, plan, coco, flickr)
    plan_vqa2(config, plan, coco)
    plan_nlvr2(config, plan)
    names = [(f"{item.path.split('/')[0]} {item.part} images", item.scene) for item in plan.pictures]
    held_out = Counter(f"{name} with a held-out combination" for name, scene in names if scene.has_held_out())
    plan.counts = {**Counter(name for name, _ in names), **held_out, **plan.counts}
    tests = {"coco": config.coco_test_images, "flickr30k": config.flickr_test_images}
    plan.baselines["retrieval chance R@1"] = {name: round(100 / number, 2) for name, number in tests.items()}
    plan_vocabulary(plan)
    plan_visual_genome_qa(config, plan, genome)  # which came later: a vocabulary, and a world's other files, stay as they were
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
    scene = {"width": item.scene.width, "height": item.scene.height, "grid": [item.scene.rows, item.scene.columns]}
    return json.dumps({"path": item.path, "part": item.part, **scene, "objects": figures})


def _draw(out: Path, pictures: list[Picture], processes: int) -> None:
    jobs = [(out / item.path, item.scene, item.seed, item.encoding) for item in pictures]
    if processes == 1:
        for job in jobs:
            write_image(*job)
        return
    context = multiprocessing.get_context("spawn")
    ignoring = (signal.signal, (signal.SIGINT, signal.SIG_IGN))  # Ctrl-C is this process's
    try:
        with ProcessPoolExecutor(processes, context, *ignoring) as pool:
            list(pool.map(write_image, *zip(*jobs, strict=True), chunksize=64))
    except BrokenProcessPool as error:  # killed, or never begun, as from a program that is read from standard input
        raise UserError(f"processes={processes}: a process that draws ended; processes=1 draws without others") from error


def _refuse_other_files(out: Path, overwrite: bool) -> None:
    """Before any work: a whole world, or files of somebody else, are written over or among only with `overwrite`."""
    out.mkdir(parents=True, exist_ok=True)
    if overwrite:
        return
    if (out / SUMMARY).exists():
        raise UserError(f"out={out}: holds a world already; give another folder, or overwrite=true to replace it")
    if not (out / MANIFEST).exists() and any(out.iterdir()):
        raise UserError(f"out={out}: is not empty; give a new folder, or overwrite=true to write among the files there")


def _made_files(out: Path) -> set[str]:
    """What an earlier make, whole or not, wrote here, by its own list."""
    manifest = out / MANIFEST
    return set(manifest.read_text(encoding="utf-8").splitlines()) if manifest.exists() else set()


def _delete(out: Path, made: set[str]) -> None:
    """Delete these files, the summary first, and the folders that are empty then."""
    (out / SUMMARY).unlink(missing_ok=True)
    for path in made:
        (out / path).unlink(missing_ok=True)
    folders = {parent for path in made for parent in (out / path).parents if out in parent.parents}
    for folder in sorted(folders, reverse=True):  # the inner ones first
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _write_whole(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
