"""Visual Genome: region descriptions and image data; some of its images are COCO's or Flickr30K's."""

from dataclasses import replace
from random import Random
from typing import Any

from pixelbert_plugin.miniature.language import region_phrases
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, Plan, as_json, generator, picture, scenes
from pixelbert_plugin.miniature.scenes import Scene

URL = "https://cs.stanford.edu/people/rak248"
HELD_PARTS = ("val", "test")


Entry = tuple[Picture | Scene, int | None, int | None]  # what is shown, and its numbers in COCO and Flickr30K


def plan_visual_genome(config: WorldConfig, plan: Plan, coco: list[Picture], flickr: list[Picture]) -> list[Picture]:
    """Add Visual Genome to the plan; returns its pictures, whose part is "leaked" where COCO or Flickr30K tests on them."""
    random = generator(config, "visual genome")
    shared = _shared_with_coco(config, coco, random)
    tested = [item for item in flickr if item.part in HELD_PARTS]
    shared += [(item, None, item.image_id) for item in random.sample(tested, config.vg_flickr_images)]
    own = scenes(config, "visual genome", "train", config.vg_images - len(shared))
    entries: list[Entry] = [*shared, *((scene, None, None) for scene in own)]
    random.shuffle(entries)
    image_ids = sorted(random.sample(range(1, 2_417_997), len(entries)))
    pictures, images, regions = [], [], []
    first_region = 1
    for image_id, (source, coco_id, flickr_id) in zip(image_ids, entries, strict=True):
        folder = random.choice(("VG_100K", "VG_100K_2"))
        path = f"visual_genome/{folder}/{image_id}.jpg"
        if isinstance(source, Picture):
            part = "leaked" if source.part in HELD_PARTS else "train"
            item = replace(source, path=path, image_id=image_id, part=part)
        else:
            item = picture(config, path, source, image_id=image_id, part="train")
        pictures.append(item)
        size = {"width": item.scene.width, "height": item.scene.height}
        url = f"{URL}/{folder}/{image_id}.jpg"
        images.append({"image_id": image_id, "url": url, **size, "coco_id": coco_id, "flickr_id": flickr_id})
        phrases = region_phrases(item.scene, random, random.randint(4, 8))
        regions.append({"regions": _regions(image_id, phrases, first_region), "id": image_id})
        first_region += len(phrases)
    plan.files["visual_genome/image_data.json"] = as_json(images)
    plan.files["visual_genome/region_descriptions.json"] = as_json(regions)
    plan.counts["visual_genome regions"] = first_region - 1
    plan.pictures += pictures
    return pictures


def _shared_with_coco(config: WorldConfig, coco: list[Picture], random: Random) -> list[Entry]:
    """Of COCO's pictures: three in ten of val and test (so that there is something to leave out), then train and restval."""
    judged = [item for item in coco if item.part in HELD_PARTS]
    trained = [item for item in coco if item.part in ("train", "restval")]
    number = min(len(judged), max(round(0.3 * config.vg_coco_images), config.vg_coco_images - len(trained)))
    chosen = random.sample(judged, number) + random.sample(trained, config.vg_coco_images - number)
    return [(item, item.image_id, None) for item in chosen]


def _regions(image_id: int, phrases: list[tuple[str, tuple[int, int, int, int]]], first: int) -> list[dict[str, Any]]:
    return [
        {
            "region_id": first + index,
            "width": width,
            "height": height,
            "image_id": image_id,
            "phrase": phrase,
            "y": y,
            "x": x,
        }
        for index, (phrase, (x, y, width, height)) in enumerate(phrases)
    ]
