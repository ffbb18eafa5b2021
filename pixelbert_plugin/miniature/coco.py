"""COCO: images, official captions and the Karpathy split."""

from typing import Any

from pixelbert_plugin.miniature.karpathy import Sentences, karpathy_image, with_sentences
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
        {"filepath": item.path.split("/")[1], **karpathy_image(index, item, sentences), "cocoid": item.image_id}
        for index, item in enumerate(captioned)
    ]
    plan.files["coco/dataset_coco.json"] = as_json({"images": karpathy, "dataset": "coco"})
    plan.pictures += pictures
    return pictures


def _official(pictures: list[Picture], sentences: Sentences) -> dict[str, Any]:
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
    annotations: list[dict[str, Any]] = [
        {"image_id": item.image_id, "id": number, "caption": text} for item in pictures for number, text in sentences[item.path]
    ]
    annotations.sort(key=lambda annotation: annotation["id"])
    return {"info": INFO, "images": images, "licenses": LICENSES, "annotations": annotations}
