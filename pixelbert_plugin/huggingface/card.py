"""The model card of an exported folder, README.md: all of its figures are the run's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelbert_plugin.config import files
from pixelbert_plugin.registry import yaml_text

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel

PIPELINE_TAGS = {"vqa": "visual-question-answering"}  # the hub's names, where it has one
ABOUT = {
    "vqa": "answers questions about images, by choosing among the answers of its vocabulary",
    "nlvr2": "says whether a statement about two images is true",
    "retrieval": "scores how well a text fits an image",
    "pretrain": "was pre-trained on images and texts, by masked language modelling and image-text matching",
}
USE = {
    "vqa": """\
import pixelbert_plugin.huggingface  # registers the classes
from transformers import pipeline

answer = pipeline("pixelbert-question-answering", model=FOLDER)
print(answer(image="picture.jpg", question="what is it?", top_k=3))""",
    "nlvr2": """\
from pixelbert_plugin.huggingface import PixelBertForImagesAndTextClassification, PixelBertProcessor

model, processor = (each.from_pretrained(FOLDER) for each in (PixelBertForImagesAndTextClassification, PixelBertProcessor))
inputs = processor(images=["left.jpg", "right.jpg"], text="both show a dog", return_tensors="pt")
print(model(**inputs).logits.argmax(1))  # 1: true""",
    "retrieval": """\
from pixelbert_plugin.huggingface import PixelBertForImageTextRetrieval, PixelBertProcessor

model, processor = (each.from_pretrained(FOLDER) for each in (PixelBertForImageTextRetrieval, PixelBertProcessor))
inputs = processor(images="picture.jpg", text=["a dog", "two cats"], return_tensors="pt")
print(model.scores(model(**inputs).logits))  # higher for the better match""",
    "pretrain": """\
from pixelbert_plugin.huggingface import PixelBertForPreTraining, PixelBertProcessor

model, processor = (each.from_pretrained(FOLDER) for each in (PixelBertForPreTraining, PixelBertProcessor))
inputs = processor(images="picture.jpg", text="a [MASK] on the grass", return_tensors="pt")
print(model(**inputs).prediction_logits.argmax(2))""",
}


def card(loaded: "LoadedModel", content: dict[str, Any], results: dict[str, Any], name: str) -> str:
    """`content`: what the checkpoint says beside its weights; `results`: those of results.json that are this checkpoint's, {}:
    there are none. `name`: of the run."""
    config, task = loaded.config, loaded.config.task
    metrics = {key: value for key, value in results.items() if key.count("/") >= 2 and isinstance(value, int | float)}
    head = {
        "library_name": "transformers",
        "tags": ["pixel-bert", "pixelbert_plugin", task],
        **({"pipeline_tag": PIPELINE_TAGS[task]} if task in PIPELINE_TAGS else {}),
        **({"model-index": [{"name": name, "results": _index(loaded, metrics)}]} if metrics else {}),
    }
    sections = {
        "Use": _use(task),
        "Data": _data(config.datasets, content),
        "Results": _results(name, metrics, content),
        "Recipe": _recipe(content),
        "Limits": _limits(loaded),
        "Licence": _licence(config.datasets),
    }
    title = f"# {name}\n\nA Pixel-BERT (Huang et al. 2020, https://arxiv.org/abs/2004.00849) that {ABOUT[task]}."
    body = "\n\n".join([title, *(f"## {heading}\n\n{text}" for heading, text in sections.items())])
    return f"---\n{yaml_text.dump(head)}---\n{body}\n"


def _use(task: str) -> str:
    code = USE[task].replace("FOLDER", repr("PATH_OF_THIS_FOLDER"))
    return f"```python\n{code}\n```\n\n`pixelbert_plugin.load(PATH)` reads it too."


def _index(loaded: "LoadedModel", metrics: dict[str, float]) -> list[dict[str, Any]]:
    """The hub's form of results: the task's main metric by split and data set. The others are in the table, with what they
    are to be compared with."""
    task, metric = loaded.config.task, loaded.task.main_metric
    found = {key.removesuffix(f"/{metric}"): value for key, value in metrics.items() if key.endswith(f"/{metric}")}
    return [
        {
            "task": {"type": PIPELINE_TAGS.get(task, task), "name": task},
            "dataset": {"type": where.partition("/")[2], "name": where.partition("/")[2], "split": where.partition("/")[0]},
            "metrics": [{"type": metric, "name": metric, "value": value}],
        }
        for where, value in found.items()
    ]


def _data(datasets: list[str], content: dict[str, Any]) -> str:
    lines = ["| split and data set | samples |", "|---|---|"]
    counted = {name: data["samples"] for name, data in content.get("data", {}).items() if "samples" in data}
    lines += [f"| {name} | {count:,} |" for name, count in counted.items()]
    text = "\n".join(lines) if counted else f"Data sets: {', '.join(datasets)}; the checkpoint does not say how many samples."
    sources = content.get("started_from", [])
    told = [f"{source['key']}={source['path']}, after its update {source['update']:,}" for source in sources]
    origin = "; then from ".join(told) if told else "what the recipe below names, else at random"
    return f"{text}\n\nThe weights started from {origin}."


def _results(name: str, metrics: dict[str, float], content: dict[str, Any]) -> str:
    state = content["state"]
    best = state.get("best")
    told = "" if best is None else f" Of this training's validations it was the best, at {best:.6g}."
    text = f"The checkpoint is that after update {state['update']:,}, {state['samples']:,} samples.{told}"
    if not metrics:
        return f"{text} There is no evaluation of it in a results.json."
    splits = "_".join(dict.fromkeys(key.partition("/")[0] for key in metrics))
    lines = [
        "| split, data set and metric | value |",
        "|---|---|",
        *(f"| {key} | {value:.6g} |" for key, value in metrics.items()),
    ]
    command = f"    pixelbert-run config={name}/config.yaml run_type={splits}"
    return f"{text} From the run's results.json, which this command writes:\n\n{command}\n\n" + "\n".join(lines)


def _recipe(content: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in content.get("versions", {}).items())
    made = f"Made with {versions}. " if versions else ""
    return f"{made}The run's whole configuration:\n\n```yaml\n{content['config'].strip()}\n```"


def _limits(loaded: "LoadedModel") -> str:
    text, image = loaded.processors["text"].config, loaded.processors["image"].config
    lines = [
        f"- Texts are cut after {text.max_length} tokens; the vocabulary has {loaded.processors['text'].vocab_size:,} pieces.",
        f"- Images are resized to a shorter side of {image.short_edge} pixels, the longer one at most {image.long_edge}.",
    ]
    if "answers" in loaded.processors:
        lines.append(f"- It gives no other answer than the {len(loaded.processors['answers']):,} of its vocabulary.")
    lines.append("- Beyond the figures above nothing was measured: not on other data, not for bias, not for another language.")
    return "\n".join(lines)


def _licence(datasets: list[str]) -> str:
    code = "The code that computes it, pixelbert_plugin, is under the MIT licence. The run names none for the weights."
    lines = [f"{code} The terms of the data:", ""]
    for name in datasets:
        terms = _terms(name)
        lines.append(f"- {name}: {terms or 'see where the data set is from'}")
    return "\n".join(lines)


def _terms(dataset: str) -> str | None:
    """The line of a shipped data set's README that says where it is from and under which terms."""
    for folder in (files.PACKAGE, files.PACKAGE.parent):
        readme: Path = folder / "datasets" / dataset / "README.md"
        if readme.is_file():
            lines = [line for line in readme.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
            return lines[0] if lines else None
    return None
