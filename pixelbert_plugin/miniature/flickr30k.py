"""Flickr30K: images and their captions in Karpathy's format."""

from pixelbert_plugin.miniature.karpathy import karpathy_image, with_sentences
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Picture, Plan, as_json, generator, picture, scenes


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
    images = [karpathy_image(index, item, sentences) for index, item in enumerate(shuffled)]
    plan.files["flickr30k/dataset_flickr30k.json"] = as_json({"images": images, "dataset": "flickr30k"})
    plan.pictures += pictures
    return pictures
