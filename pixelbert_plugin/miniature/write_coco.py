"""COCO: images, official captions and the Karpathy split."""

import re
from typing import Any

from pixelbert_plugin.miniature.language import captions
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, Plan, as_json, generator, picture, scenes

INFO = {
    "description": "Miniature world in the format of COCO 2014",
    "url": "http://cocodataset.org",
    "version": "1.0",
    "year": 2014,
    "contributor": "pixelbert-data make",
    "date_created": "2014/01/01",
}
LICENSES = [{"url": "http://creativecommons.org/publicdomain/zero/1.0/", "id": 1, "name": "Public domain"}]
SCENE_SPLIT = {"train": "train", "restval": "train", "val": "val", "test": "test", "test2015": "test"}


def plan_coco(config: WorldConfig, plan: Plan) -> list[Picture]:
    """Add COCO to the plan; returns its pictures, whose part is Karpathy's split or "test2015"."""
    numbers = {part: getattr(config, f"coco_{part}_images") for part in SCENE_SPLIT}
    random = generator(config, "coco ids")
    ids = iter(random.sample(range(9, 582_000), sum(numbers.values())))
    pictures = []
    for part, number in numbers.items():
        folder = {"train": "train2014", "test2015": "test2015"}.get(part, "val2014")
        judged = part in ("val", "test")
        share = config.held_out_share if judged else 0.0
        for scene in scenes(config, f"coco {part}", SCENE_SPLIT[part], number, share=share, distinct=judged):
            image_id = next(ids)
            path = f"coco/{folder}/COCO_{folder}_{image_id:012d}.jpg"
            pictures.append(picture(config, path, scene, image_id=image_id, part=part))
    captioned = [item for item in pictures if item.part != "test2015"]
    random.shuffle(captioned)
    sentences = with_sentences(config, captioned, random.sample(range(37, 830_000), 5 * len(captioned)))
    for folder in ("train2014", "val2014"):
        chosen = [item for item in captioned if f"/{folder}/" in item.path]
        plan.files[f"coco/annotations/captions_{folder}.json"] = as_json(_official(chosen, sentences))
    karpathy = [
        {"filepath": item.path.split("/")[1], **_karpathy(index, item, sentences), "cocoid": item.image_id}
        for index, item in enumerate(captioned)
    ]
    plan.files["coco/dataset_coco.json"] = as_json({"images": karpathy, "dataset": "coco"})
    plan.pictures += pictures
    return pictures


def with_sentences(config: WorldConfig, pictures: list[Picture], ids: list[int]) -> dict[str, list[tuple[int, str]]]:
    """Five captions for each picture, with their ids, by the picture's path."""
    texts = {item.path: captions(item.scene, generator(config, "captions", item.path)) for item in pictures}
    numbers = iter(ids)
    return {path: [(next(numbers), text) for text in lines] for path, lines in texts.items()}


def _official(pictures: list[Picture], sentences: dict[str, list[tuple[int, str]]]) -> dict[str, Any]:
    images = [
        {
            "license": 1,
            "file_name": item.path.split("/")[-1],
            "coco_url": f"http://images.cocodataset.org/{item.path.removeprefix('coco/')}",
            "height": item.scene.height,
            "width": item.scene.width,
            "date_captured": "2014-01-01 00:00:00",
            "flickr_url": "",
            "id": item.image_id,
        }
        for item in pictures
    ]
    annotations = [
        {"image_id": item.image_id, "id": number, "caption": text} for item in pictures for number, text in sentences[item.path]
    ]
    annotations.sort(key=lambda annotation: annotation["id"])
    return {"info": INFO, "images": images, "licenses": LICENSES, "annotations": annotations}


def _karpathy(index: int, item: Picture, sentences: dict[str, list[tuple[int, str]]]) -> dict[str, Any]:
    """An image as Karpathy's files have it; index: its place among them."""
    return {
        "sentids": [number for number, _ in sentences[item.path]],
        "filename": item.path.split("/")[-1],
        "imgid": index,
        "split": item.part,
        "sentences": [
            {"tokens": re.findall(r"[a-z]+", text.lower()), "raw": text, "imgid": index, "sentid": number}
            for number, text in sentences[item.path]
        ],
    }


def plan_flickr30k(config: WorldConfig, plan: Plan) -> list[Picture]:
    """Add Flickr30K in Karpathy's format to the plan; returns its pictures."""
    numbers = {part: getattr(config, f"flickr_{part}_images") for part in ("train", "val", "test")}
    random = generator(config, "flickr ids")
    ids = iter(random.sample(range(36_979, 8_250_000_000), sum(numbers.values())))
    pictures = []
    for part, number in numbers.items():
        for scene in scenes(config, f"flickr {part}", part, number, distinct=part != "train"):
            image_id = next(ids)
            path = f"flickr30k/flickr30k-images/{image_id}.jpg"
            pictures.append(picture(config, path, scene, image_id=image_id, part=part))
    shuffled = random.sample(pictures, len(pictures))
    sentences = with_sentences(config, shuffled, list(range(5 * len(shuffled))))
    images = [_karpathy(index, item, sentences) for index, item in enumerate(shuffled)]
    plan.files["flickr30k/dataset_flickr30k.json"] = as_json({"images": images, "dataset": "flickr30k"})
    plan.pictures += pictures
    return pictures
