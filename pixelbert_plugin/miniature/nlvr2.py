"""NLVR2: statements about pairs of images, as JSON lines, and their image files."""

import json
from typing import Any

from pixelbert_plugin.miniature.baselines import single_image, statement_only
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.plan import Plan, generator, picture
from pixelbert_plugin.miniature.scenes import IMAGE_SIZES
from pixelbert_plugin.miniature.statements import StatementSet, make_set

SCENE_SPLIT = {"train": "train", "dev": "val", "test1": "test", "test2": "test"}
ENCODINGS = {"png": 93, "jpeg": 5, "rgba": 2}  # weights: some files called .png are JPEGs, as in the official data
DIRECTORIES = 100  # folders of the training images


def plan_nlvr2(config: WorldConfig, plan: Plan) -> None:
    """Add NLVR2 to the plan, with the accuracies of a statement-only and a single-image baseline."""
    sets: dict[str, list[StatementSet]] = {}
    for split, scene_split in SCENE_SPLIT.items():
        random = generator(config, "nlvr2", split)
        number = getattr(config, f"nlvr2_{split}_sets")
        sets[split] = [
            make_set(random, scene_split, index, config.statements_per_set, held_out=split == "test2" and index % 2 == 0)
            for index in range(number)
        ]
        lines = {index: _set_lines(config, plan, split, index, item) for index, item in enumerate(sets[split])}
        files = {f"data/{split}.json": list(lines)}
        if split in ("dev", "test1"):
            files[f"data/balanced/balanced_{split}.json"] = [index for index in lines if index % 3]
            files[f"data/unbalanced/unbalanced_{split}.json"] = [index for index in lines if not index % 3]
        for name, chosen in files.items():
            rows = [line for index in chosen for line in lines[index]]
            plan.files[f"nlvr2/{name}"] = "".join(json.dumps(row) + "\n" for row in rows)
            plan.counts[f"nlvr2 {name.split('/')[-1].removesuffix('.json')} examples"] = len(rows)
    plan.baselines["nlvr2"] = {
        "statement_only_accuracy": statement_only(sets["train"], sets["test1"]),
        "single_image_accuracy": single_image(sets["train"], sets["test1"]),
    }


def _set_lines(config: WorldConfig, plan: Plan, split: str, index: int, item: StatementSet) -> list[dict[str, Any]]:
    """The examples of a set, pair by pair, its pictures added to the plan."""
    random = generator(config, "nlvr2", split, index)
    number = 10 * index + random.randrange(10)  # set numbers with gaps, as in the official files
    directory = random.randrange(DIRECTORIES)
    folder = f"nlvr2/images/{split}/{directory}" if split == "train" else f"nlvr2/images/{split}"
    size = random.choice([size for size in IMAGE_SIZES if (size[0] > size[1]) == (item.pairs[0][0].rows == 2)])
    lines = []
    for place, pair in enumerate(item.pairs):
        for side, scene in enumerate(pair):
            encoding = random.choices(list(ENCODINGS), list(ENCODINGS.values()))[0]
            path = f"{folder}/{split}-{number}-{place}-img{side}.png"
            plan.pictures.append(picture(config, path, scene, size, image_id=number, part=split, encoding=encoding))
        for sentence_number, statement in enumerate(item.statements):
            label = str(statement.labels[place])
            url = f"https://example.org/{split}/{number}-{place}"
            line: dict[str, Any] = {
                "validation": {str(random.randrange(160)): label},
                "sentence": statement.sentence,
                "left_url": f"{url}-left.jpg",
                "writer": str(number % 100),
                "label": label,
                "right_url": f"{url}-right.jpg",
                "synset": item.subject,
                "query": f"{item.subject}{index}",
                "identifier": f"{split}-{number}-{place}-{sentence_number}",
            }
            if split == "train":
                line["directory"] = directory
            else:
                line["extra_validations"] = {str(judge): label for judge in random.sample(range(160), 4)}
            lines.append(line)
    random.shuffle(lines)
    return lines
