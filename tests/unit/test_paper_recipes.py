"""Every number of the paper, and every choice where it is silent, in each experiment's YAML and in what is built from it.

Two tables: `PAPER` with the section each number stands in, and `CHOICES`, which projects/pixelbert/README.md lists. A YAML
that leaves either must change it here too.
"""

import dataclasses
from functools import cache

import pytest
import torch
from conftest import ROOT
from torch import nn

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import build_optimizers
from pixelbert_plugin.types import Batch, PixelFeatures

CONFIGS = ROOT / "projects/pixelbert/configs"
TASKS = ("pretrain", "vqa2", "nlvr2", "flickr30k_retrieval", "coco_retrieval")
EXPERIMENTS = [f"{task}{backbone}" for task in TASKS for backbone in ("", "_x152")]
VOCABULARY = 30522  # bert-base-uncased
BERT_PARAMETERS = 85_054_464  # 12 layers of 768; ViLT, table 6, counts 85.0 M

IMAGE, MODEL = "processors.image.params", "model_config.pixelbert"
EVERYWHERE_PAPER = {
    # section 4.1: "SGD for the CNN, AdamW for the transformer", in pre-training and in fine-tuning
    "optimizer.cnn.type": "sgd",
    "optimizer.cnn.params.lr": 1e-2,
    "optimizer.cnn.params.weight_decay": 5e-4,
    "optimizer.transformer.type": "adamw",
    "optimizer.transformer.params.lr": 1e-4,
    "optimizer.transformer.params.weight_decay": 1e-2,
    "scheduler.type": "step",
    "scheduler.params.unit": "epochs",
    "scheduler.params.gamma": 0.1,
    # section 3.2: BERT-base and its WordPieces; a CNN that ImageNet initialised, then 2×2 pooling; nothing but s_v on pixels
    "model": "pixelbert",
    "processors.text.type": "bert_tokenizer",
    "processors.text.params.vocabulary": "bert-base-uncased",
    f"{MODEL}.text_encoder.type": "bert",
    f"{MODEL}.text_encoder.params.weights": "bert-base-uncased",
    f"{MODEL}.image_encoder.params.max_pool": True,
    f"{MODEL}.image_encoder.params.num_stages": 4,
    f"{MODEL}.position_embedding": "none",
}
PAPER = {
    "pretrain": {  # sections 3.3 and 4.1
        "task": "pretrain",
        "datasets": ["coco", "visual_genome"],
        "task_config.pretrain.mlm": True,
        "task_config.pretrain.itm": True,
        "task_config.pretrain.mask_probability": 0.15,
        f"{MODEL}.num_sampled_pixels": 100,
        f"{MODEL}.freeze_image_encoder": False,
        "training.batch_size": 4096,
        "training.max_epochs": 40,
        "scheduler.params.milestones": [25, 35],
    },
    "vqa2": {  # section 4.1
        "task": "vqa",
        "datasets": ["vqa2"],
        "processors.answers.params.min_occurrences": 9,
        "processors.answers.params.splits": ["train", "val"],  # 3,129 answers
        "task_config.vqa.metric": "vqa_accuracy",
        f"{MODEL}.num_sampled_pixels": None,
        f"{MODEL}.freeze_image_encoder": False,
        "training.batch_size": 256,
        "training.max_epochs": 18,
        "scheduler.params.milestones": [12, 16],
    },
    "nlvr2": {  # section 4.2: half of VQA's batch, else its recipe
        "task": "nlvr2",
        "datasets": ["nlvr2"],
        f"{MODEL}.num_sampled_pixels": None,
        f"{MODEL}.freeze_image_encoder": False,
        "training.batch_size": 128,
        "training.max_epochs": 18,
        "scheduler.params.milestones": [12, 16],
    },
    "flickr30k_retrieval": {  # section 4.2: 64 images on each of 8 GPUs
        "task": "retrieval",
        "datasets": ["flickr30k"],
        "task_config.retrieval.num_negatives": 20,
        "task_config.retrieval.num_hardest": 5,
        f"{MODEL}.num_sampled_pixels": None,
        f"{MODEL}.freeze_image_encoder": True,
        "training.batch_size": 8 * 64,
        "training.max_epochs": 10,
        "scheduler.params.milestones": [6],
    },
    "coco_retrieval": {  # section 4.2
        "task": "retrieval",
        "datasets": ["coco"],
        "task_config.retrieval.num_negatives": 20,
        "task_config.retrieval.num_hardest": 5,
        "task_config.retrieval.fold_images": 1000,  # the five folds of the literature's COCO 1K
        f"{MODEL}.num_sampled_pixels": None,
        f"{MODEL}.freeze_image_encoder": True,
        "training.batch_size": 8 * 64,
        "training.max_epochs": 4,
        "scheduler.params.milestones": [],
    },
}
BACKBONES = {  # section 4.1
    "": {
        f"{MODEL}.image_encoder.type": "resnet50",
        f"{MODEL}.image_encoder.params.weights": "IMAGENET1K_V1",
        f"{MODEL}.image_encoder.params.norm": "trainable",  # a choice
        f"{IMAGE}.short_edge": 800,
        f"{IMAGE}.long_edge": 1333,
    },
    "_x152": {
        f"{MODEL}.image_encoder.type": "resnext152_32x8d",  # the group width is a choice
        f"{MODEL}.image_encoder.params.weights": "weights/X-152-32x8d-IN5k.pkl",
        f"{MODEL}.image_encoder.params.norm": "frozen",  # as those weights ask for
        f"{IMAGE}.short_edge": 600,
        f"{IMAGE}.long_edge": 1000,
    },
}

EVERYWHERE_CHOICES = {
    "optimizer.cnn.params.momentum": 0.9,
    "optimizer.cnn.params.nesterov": False,
    "optimizer.transformer.params.betas": [0.9, 0.999],
    "optimizer.transformer.params.eps": 1e-8,
    "scheduler.params.warmup_updates": 0,
    "training.max_grad_norm": None,
    "training.max_updates": None,
    "training.early_stop.enabled": False,
    "training.early_stop.monitor": None,
    "training.early_stop.minimize": False,
    "training.precision": "auto",
    "training.bucket_by_size": True,
    "training.seed": 1,
    f"{MODEL}.image_encoder.params.weights_format": "auto",
    f"{MODEL}.image_encoder.params.stride_in_1x1": None,  # as the weights have it
    f"{MODEL}.text_encoder.params.dropout": 0.1,
    f"{MODEL}.text_encoder.params.attention_dropout": 0.1,
    f"{MODEL}.text_encoder.params.initializer_range": 0.02,
    f"{MODEL}.text_encoder.params.layer_norm": "torch",
    f"{MODEL}.text_encoder.params.hidden_act": None,  # these three are those of the weights, BERT-base
    f"{MODEL}.text_encoder.params.layer_norm_eps": None,
    f"{MODEL}.text_encoder.params.type_vocab_size": None,
    f"{MODEL}.projection": "linear",
    f"{MODEL}.pooler": False,
    f"{MODEL}.pixel_layer_norm": False,
    f"{MODEL}.pixel_layer_norm_eps": 1e-5,
    f"{MODEL}.pixel_dropout": 0.0,
    f"{IMAGE}.mean": [0.485, 0.456, 0.406],
    f"{IMAGE}.std": [0.229, 0.224, 0.225],
    f"{IMAGE}.horizontal_flip": 0.0,
    f"{IMAGE}.min_crop": 1.0,
    f"{IMAGE}.color_jitter": 0.0,
    "processors.text.params.lowercase": True,
}
TRAIN2014, VAL2014 = "coco/train2014", "coco/val2014"
CHOICES = {
    "pretrain": {
        "processors.text.params.max_length": 64,
        "task_config.pretrain.whole_words": False,
        "training.texts_per_image": 8,
        "training.dataset_weights": {"coco": 1.0, "visual_genome": 1.0},
        # no image that a fine-tuning is validated or tested on
        "dataset_config.visual_genome.exclude_coco": "coco/dataset_coco.json",
        "dataset_config.visual_genome.exclude_flickr30k": "flickr30k/dataset_flickr30k.json",
        "dataset_config.visual_genome.num_val_images": 0,
    },
    "vqa2": {
        "processors.text.params.max_length": 32,
        "task_config.vqa.image_answers_weight": 0.0,
        "training.texts_per_image": 4,
        "dataset_config.vqa2.use": {},
    },
    "nlvr2": {
        "processors.text.params.max_length": 64,
        "training.texts_per_image": 2,
        "dataset_config.nlvr2.use": {"val": "dev", "test": "test1"},
    },
    "flickr30k_retrieval": {
        "processors.text.params.max_length": 64,
        "training.texts_per_image": 1,
        "dataset_config.flickr30k.use": {},
        "dataset_config.flickr30k.splits": {"train": ["train"], "val": ["val"], "test": ["test"]},
    },
    "coco_retrieval": {
        "processors.text.params.max_length": 64,
        "training.texts_per_image": 1,
        "dataset_config.coco.use": {},
    },
}
# options of the sections that decide what is learned, and of no number: what does not follow, tables above must hold
NO_NUMBER = {
    f"{MODEL}.max_grid_size",  # of position_embedding 2d alone
    *(
        f"{MODEL}.text_encoder.params.{name}"  # None: those of the weights, BERT-base
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        )
    ),
}


def parts(name: str) -> tuple[str, str]:
    """The task and the backbone's suffix of an experiment."""
    return name.removesuffix("_x152"), "_x152" if name.endswith("_x152") else ""


@cache
def complete(name: str, *overrides: str):
    return configuration.complete(configuration.load(str(CONFIGS / f"{name}.yaml"), list(overrides)))


@cache
def dumped(name: str) -> dict:
    return configuration.dump(complete(name))


def value(name: str, key: str):
    """What an experiment's resolved configuration holds at a dotted key."""
    node = dumped(name)
    for part in key.split("."):
        node = node[part]
    return node


def test_the_tables_name_every_yaml():
    files = {path.stem for path in CONFIGS.glob("*.yaml")} - {"base", "x152", "clipbert"}
    others = ("_from_clipbert", "_visual_genome")  # than the paper's
    assert {name for name in files if not name.endswith(others)} == set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_number_of_the_paper_is_in_the_yaml(name):
    task, backbone = parts(name)
    for key, expected in {**EVERYWHERE_PAPER, **PAPER[task], **BACKBONES[backbone]}.items():
        assert value(name, key) == expected, key


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_choice_is_as_the_readme_says(name):
    task, _ = parts(name)
    for key, expected in {**EVERYWHERE_CHOICES, **CHOICES[task]}.items():
        assert value(name, key) == expected, key


@pytest.mark.parametrize("name", TASKS)
def test_no_option_of_model_optimizers_and_schedule_is_without_a_place_in_the_tables(name):
    """A new option of these is the paper's or a choice: it has to be put into one of the tables."""
    known = {*EVERYWHERE_PAPER, *EVERYWHERE_CHOICES, *PAPER[name], *CHOICES[name], *BACKBONES[""], *NO_NUMBER}
    sections = ("optimizer.", "scheduler.", "model_config.", f"task_config.{PAPER[name]['task']}.")
    found = {key for key in configuration.leaves(complete(name)) if key.startswith(sections)}
    missing = {key for key in found - known if not any(key.startswith(f"{held}.") for held in known)}
    optional = {f"task_config.retrieval.{option}" for option in ("max_val_images", "max_test_images", "fold_images")}
    assert missing <= optional, missing


def test_the_data_are_those_that_the_paper_trains_on():
    vqa = complete("vqa2")
    coco = value("pretrain", "dataset_config.coco.splits")
    assert [(part["images"], part["karpathy_splits"]) for part in coco["train"]] == [
        (TRAIN2014, ["train"]),
        (VAL2014, ["restval"]),
    ]
    assert coco["val"][0]["karpathy_splits"] == ["val"] and coco["test"][0]["karpathy_splits"] == ["test"]
    questions = {name: [part.questions for part in found] for name, found in vqa.dataset_config["vqa2"].splits.items()}
    train, val = (f"vqa2/v2_OpenEnded_mscoco_{split}2014_questions.json" for split in ("train", "val"))
    assert questions["train"] == [train] and questions["val"] == questions["minival"] == [val]
    assert questions["trainval"] == [train, val]
    karpathy = {name: [part.karpathy_splits for part in found] for name, found in vqa.dataset_config["vqa2"].splits.items()}
    # what is validated on is not trained on, and pre-training saw neither of Karpathy's val and test
    assert karpathy["trainval"] == [[], ["restval", "test"]] and karpathy["minival"] == [["val"]]
    assert value("coco_retrieval", "dataset_config.coco.splits") == coco


def test_visual_genomes_questions_are_one_override_and_about_no_image_of_val():
    """VQA's val is about all of val2014, of which Karpathy's restval, val and test are the parts; minival about his val."""
    for name in ("vqa2", "vqa2_x152", "mini/vqa2"):
        config = complete(name, "datasets=[vqa2,visual_genome_qa]")
        added = config.dataset_config["visual_genome_qa"]
        assert added.exclude_coco_splits == ["restval", "val", "test"] and added.only_known_answers
        assert added.exclude_coco == config.dataset_config["vqa2"].karpathy == "coco/dataset_coco.json"
        assert not config.dataset_config["vqa2"].only_known_answers and not config.training.dataset_weights
    config = complete("vqa2_trainval_visual_genome")
    vqa, added = config.dataset_config["vqa2"], config.dataset_config["visual_genome_qa"]
    assert config.datasets == ["vqa2", "visual_genome_qa"] and vqa.use == {"train": "trainval", "val": "minival"}
    (minival,) = vqa.splits["minival"]
    assert set(minival.karpathy_splits) <= set(added.exclude_coco_splits) == {"val", "test"}


def test_the_published_counts():
    counts = {name: value(name, f"dataset_config.{data}.counts") for name, data in DATA.items()}
    assert counts["coco_retrieval"]["train"]["images"] == 82783 + 30504  # train and restval
    assert counts["coco_retrieval"]["test"] == {"samples": 25010, "images": 5000}
    assert counts["flickr30k_retrieval"]["train"] == {"samples": 145000, "images": 29000}
    assert counts["flickr30k_retrieval"]["test"] == {"samples": 5000, "images": 1000}
    assert counts["nlvr2"]["train"]["samples"] == 86373
    assert counts["vqa2"]["train"]["samples"] == 443757 and counts["vqa2"]["val"]["samples"] == 214354


DATA = {"vqa2": "vqa2", "nlvr2": "nlvr2", "flickr30k_retrieval": "flickr30k", "coco_retrieval": "coco"}
HEADS = {
    "pretrain": {"mlm": VOCABULARY, "itm": 2},
    "vqa": {"answers": 3129},
    "nlvr2": {"pair": 2},
    "retrieval": {"itm": 2},
}


@cache
def built(name: str):
    """The experiment's configuration and its model at full size, without memory for weights (torch's meta device)."""
    params = "model_config.pixelbert.{}_encoder.params.weights=null"
    config = complete(name, params.format("image"), params.format("text"))
    with torch.device("meta"):
        model = registry.build(
            "model",
            config.model,
            config.model_config[config.model],
            "model_config.pixelbert",
            vocab_size=VOCABULARY,
            heads=HEADS[config.task],
        )
    return config, model.to("meta")


@torch.no_grad()
@pytest.mark.parametrize("name", TASKS)
def test_pixels_are_sampled_in_pretraining_alone(name):
    """By the experiment's own options but for a small transformer, on what a CNN might say of images of 704 × 704."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = [f"{MODEL}.text_encoder.params.{key}={size}" for key, size in sizes.items()]
    none = [f"{MODEL}.{encoder}_encoder.params.weights=null" for encoder in ("image", "text")]
    config = complete(name, f"{MODEL}.image_encoder.type=resnet18", *none, *text)
    task, pixels = PAPER[name]["task"], 11 * 11
    images = 2 if task == "nlvr2" else 1
    batch = Batch(
        sample_ids=[0],
        input_ids=torch.full((1, 5), 7),
        text_mask=torch.ones(1, 5, dtype=torch.bool),
        images=torch.zeros(images, 3, 1, 1),
        image_sizes=torch.ones(images, 2, dtype=torch.int64),
        image_index=torch.arange(images)[None],
        image_seeds=torch.arange(images),
        weights=torch.ones(1),
        targets={"mlm_positions": torch.tensor([1, 2])},
    )
    options = config.model_config["pixelbert"]
    model = registry.build("model", "pixelbert", options, "m", vocab_size=50, heads={**HEADS[task], "mlm": 50})
    shape = (images, pixels)
    features = PixelFeatures(pixels=torch.rand(*shape, 512), mask=torch.ones(shape, dtype=torch.bool), grid=(11, 11))
    model.image_encoder.forward = lambda *_: features
    for is_training, kept in ((True, 100 if task == "pretrain" else pixels), (False, pixels)):
        output = model.train(is_training)(batch)
        assert output.pixels.shape == (images, kept, 32), is_training


@pytest.mark.parametrize("name", TASKS)
def test_the_built_transformer_is_bert_base(name):
    _, model = built(name)
    bert = model.text_encoder.bert
    layers = bert.encoder.layer
    assert len(model.text_encoder.shard_units()) == 12
    assert {layer.attention.self.num_attention_heads for layer in layers} == {12}
    assert sum(p.numel() for p in bert.encoder.parameters()) == BERT_PARAMETERS
    assert bert.embeddings.word_embeddings.weight.shape == (VOCABULARY, 768)
    assert bert.embeddings.position_embeddings.weight.shape == (512, 768)
    assert bert.pooler is None
    assert {block.intermediate.intermediate_act_fn.__class__.__name__ for block in bert.encoder.layer} == {"GELUActivation"}
    assert {module.eps for module in bert.modules() if isinstance(module, nn.LayerNorm)} == {1e-12}
    for head, part in model.heads.items():  # MLM's head is BERT's own; the others have torch's
        assert {module.eps for module in part.modules() if isinstance(module, nn.LayerNorm)} <= {
            1e-12 if head == "mlm" else 1e-5
        }
    dropouts = {module.p for module in bert.modules() if isinstance(module, nn.Dropout)}
    assert dropouts == {0.1} and bert.encoder.layer[0].attention.self.dropout.p == 0.1
    assert model.pixel_dropout.p == 0.0 and isinstance(model.pixel_norm, nn.Identity)
    assert not hasattr(model, "row_embedding") and model.pixel_embedding.shape == (768,)
    assert model.projection.weight.shape == (768, 2048)


def test_the_built_heads():
    """Sizes by hand; exact GELU, not its approximation by tanh."""
    weights = {
        "answers": (768 * 1536 + 1536) + 2 * 1536 + (1536 * 3129 + 3129),
        "pair": (2 * 768 * 768 + 768) + 2 * 768 + (768 * 2 + 2),
        "itm": 768 * 2 + 2,
        "mlm": (768 * 768 + 768) + 2 * 768 + VOCABULARY,  # and the word embeddings, which are not its own
    }
    transform = ["Linear", "GELU", "LayerNorm"]
    layers = {"answers": [*transform, "Linear"], "pair": [*transform, "Linear"], "itm": ["Linear"], "mlm": transform}
    for name in TASKS:
        _, model = built(name)
        for head, module in model.heads.items():
            assert sum(p.numel() for p in module.parameters()) == weights[head], head
            assert {part.approximate for part in module.modules() if isinstance(part, nn.GELU)} <= {"none"}
            leaves = [type(part).__name__ for part in module.modules() if not list(part.children())]
            assert leaves == layers[head], head


def test_the_built_backbones_are_resnet_50_and_resnext_152():
    for name, blocks, groups, width in (("vqa2", [3, 4, 6, 3], 1, 64), ("vqa2_x152", [3, 8, 36, 3], 32, 256)):
        encoder = built(name)[1].image_encoder
        assert [len(stage) for stage in encoder.shard_units()] == blocks
        middle = encoder.shard_units()[0][0].conv2
        assert middle.groups == groups and middle.out_channels == width  # 32 × 8
        norms = [module for module in encoder.modules() if hasattr(module, "running_var")]
        assert {norm.eps for norm in norms} == {1e-5}
        are_trained = {isinstance(norm, nn.BatchNorm2d) and (norm.momentum, norm.track_running_stats) for norm in norms}
        assert are_trained == ({(0.1, True)} if groups == 1 else {False})  # X-152's published norms are fixed
    with torch.device("meta"):
        narrow = registry.build("encoder", "resnext152_32x4d", {}, "e")
    # ViLT, table 6: Pixel-BERT-X152 has 144.3 M parameters, BERT's 85.0 M among them
    assert sum(p.numel() for p in narrow.parameters()) / 1e6 == pytest.approx(144.3 - 85.0, abs=1.5)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_built_optimizers(name):
    config, model = built(name)
    optimizers = build_optimizers(config.optimizer, model)
    is_retrieval = config.task == "retrieval"
    assert set(optimizers) == ({"transformer"} if is_retrieval else {"cnn", "transformer"})
    by_id = {id(parameter): key for key, parameter in model.named_parameters()}
    expected_rules = {"cnn": (torch.optim.SGD, 1e-2, 5e-4), "transformer": (torch.optim.AdamW, 1e-4, 1e-2)}
    held = set()
    for group_name, optimizer in optimizers.items():
        kind, rate, decay = expected_rules[group_name]
        assert isinstance(optimizer, kind)
        for group in optimizer.param_groups:
            assert group["lr"] == rate
            if group_name == "cnn":
                assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, False, 0)
            else:
                assert (tuple(group["betas"]), group["eps"], group["amsgrad"]) == ((0.9, 0.999), 1e-8, False)
            for parameter in group["params"]:
                key = by_id[id(parameter)]
                held.add(key)
                assert (group_name == "cnn") == key.startswith("image_encoder."), key
                # weights decay; biases, norms and s_v do not
                is_matrix = key.endswith("weight") and "norm" not in key.lower() and ".bn" not in key and parameter.ndim > 1
                assert group["weight_decay"] == (decay if is_matrix else 0), key
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert held == trained
    assert is_retrieval == (not any(key.startswith("image_encoder.") for key in trained))
    assert {key for key in by_id.values() if not key.startswith("image_encoder.")} <= trained
    model.train()
    norms = [module for module in model.image_encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    # a frozen CNN keeps its statistics too; X-152's norms have none to keep
    assert {norm.training for norm in norms} == (set() if name.endswith("_x152") else {not is_retrieval})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_rates_fall_at_the_papers_epochs(name):
    config = complete(name)
    schedule = registry.build_component("scheduler", config.scheduler, "scheduler.params")
    milestones = PAPER[parts(name)[0]]["scheduler.params.milestones"]
    for epoch in range(int(config.training.max_epochs)):
        expected = 0.1 ** sum(epoch >= milestone for milestone in milestones)
        assert schedule(1, float(epoch)) == pytest.approx(expected, rel=1e-12)
        assert schedule(10**6, epoch + 0.999) == pytest.approx(expected, rel=1e-12)  # however many updates an epoch has


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_is_as_many_pairs_as_the_batch_counts(name):
    """4,096 pairs are 2,048 true and 2,048 false ones; retrieval's 512 are images, each with 21 captions."""
    config = complete(name)
    text = registry.build("processor", "bert_tokenizer", {"max_length": 32}, "t")
    text.fit(["a cat", "a cat"])
    answers = registry.build("processor", "answers", {"min_occurrences": 1}, "a")
    answers.fit(["yes"])
    processors = {"text": text, "image": None, "answers": answers}
    task = registry.build("task", config.task, config.task_config[config.task], "t", processors=processors)
    samples = config.training.batch_size // task.pairs_per_sample
    expected = {"pretrain": (2048, 1), "vqa": (256, 0), "nlvr2": (128, 0), "retrieval": (512, 20)}[config.task]
    assert (samples, task.num_negatives) == expected
    metric = {"pretrain": "mlm_accuracy", "vqa": "accuracy", "nlvr2": "accuracy", "retrieval": "mean_r@1"}
    assert task.main_metric == metric[config.task]
    assert task.heads().keys() == HEADS[config.task].keys()


def test_the_defaults_of_every_option_that_the_tables_hold():
    """A YAML of somebody else, which says nothing, gets the same choices."""
    defaults = {
        ("optimizer", "sgd"): {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False},
        ("optimizer", "adamw"): {"lr": 1e-4, "weight_decay": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8},
        ("optimizer", "fused_sgd"): {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False},
        ("optimizer", "fused_adam"): {"lr": 1e-4, "weight_decay": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8},
        ("optimizer", "fused_lamb"): {"lr": 1e-4, "weight_decay": 1e-2, "betas": [0.9, 0.999], "eps": 1e-6},
        ("scheduler", "step"): {"milestones": [], "unit": "epochs", "gamma": 0.1, "warmup_updates": 0},
        ("task", "pretrain"): {"mlm": True, "itm": True, "mask_probability": 0.15, "whole_words": False},
        ("task", "vqa"): {"metric": "vqa_accuracy", "image_answers_weight": 0.0},
        ("task", "retrieval"): {"num_negatives": 20, "num_hardest": 5, "fold_images": None, "max_val_images": None},
        ("encoder", "resnet50"): {"weights": None, "norm": "trainable", "max_pool": True, "num_stages": 4},
        ("encoder", "bert"): {"dropout": 0.1, "attention_dropout": 0.1, "initializer_range": 0.02, "layer_norm": "torch"},
        ("model", "pixelbert"): {
            "num_sampled_pixels": None,
            "position_embedding": "none",
            "pixel_layer_norm": False,
            "pixel_dropout": 0.0,
            "freeze_image_encoder": False,
        },
        ("processor", "image"): {
            "short_edge": 800,
            "long_edge": 1333,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "horizontal_flip": 0.0,
            "min_crop": 1.0,
            "color_jitter": 0.0,
        },
        ("processor", "answers"): {"min_occurrences": 9, "splits": ["train"], "vocabulary": None},
        ("processor", "bert_tokenizer"): {"vocabulary": "train", "max_length": 64, "vocab_size": 30522, "lowercase": True},
    }
    for (kind, name), expected in defaults.items():
        held = dataclasses.asdict(registry.get(kind, name).Config())
        assert {key: held[key] for key in expected} == expected, (kind, name)
    from pixelbert_plugin.config.options import RunConfig

    training = RunConfig(datasets=["vqa2"]).training
    assert (training.max_grad_norm, training.early_stop.minimize, training.early_stop.enabled) == (None, False, False)
    assert (training.precision, training.seed, training.texts_per_image) == ("auto", 1, 1)
