"""How much data there is: counted where it is, by the official numbers where not."""

import pytest
from conftest import ROOT

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.planning import lengths
from unit.data.builders.test_visual_genome_qa import write
from unit.data.test_known_answers import PAIRS
from unit.data.test_samples import official


def of(name: str, *overrides: str):
    assumed = []
    config = configuration.resolve(ROOT / f"projects/pixelbert/configs/{name}.yaml", overrides)
    return lengths.measure(config, assumed), assumed


def test_official_numbers_of_pre_training():
    """COCO: five captions of each of 113,287 images, which go together; Visual Genome: 50 of an image, in seven runs of 8."""
    found, assumed = of("pretrain", "env.data_dir=/nowhere")
    assert found.epoch({}) == (566_747 + 5_400_000, 113_287 + 7 * 108_077)
    assert "coco's train: 566,747 samples" in assumed[0] and found.image_size is None
    samples, groups = found.epoch({"visual_genome": 0.2})
    assert samples == 566_747 + 1_080_000 and groups == pytest.approx(113_287 + 7 * 108_077 / 5)


def test_one_text_an_image_is_as_many_runs_as_texts():
    found, _ = of("coco_retrieval", "env.data_dir=/nowhere", "training.texts_per_image=1")
    assert found.epoch({}) == (566_747, 5 * 113_287)  # the 312 sixth captions are left out
    assert found.splits["val"]["coco"].images == 5_000


def test_a_split_of_unknown_images_is_in_runs_as_long_as_they_may_be():
    found, _ = of("nlvr2", "env.data_dir=/nowhere")
    assert found.epoch({}) == (86_373, 86_373 / 2) and found.splits["val"]["nlvr2"].samples == 6_982


def test_of_visual_genomes_questions_those_that_are_known():
    """About 485,000, as Teney et al. had; at most four of an image's go together."""
    found, assumed = of("vqa2", "env.data_dir=/nowhere", "datasets=[vqa2,visual_genome_qa]")
    assert found.epoch({})[0] == 443_757 + 485_000 and found.epoch({"visual_genome_qa": 0.5})[0] == 443_757 + 242_500
    assert list(found.splits["val"]) == ["vqa2"] and "visual_genome_qa's train: 485,000 samples" in assumed[0]


def test_what_training_leaves_out_is_not_counted(tmp_path):
    """Seven questions of three images, of which two have the answers red and 1, both of one image."""
    write(tmp_path, PAIRS)
    builders = {"visual_genome_qa": official("visual_genome_qa", tmp_path)}
    whole = lengths.Lengths({"train": {"visual_genome_qa": lengths.Split(7, 3, 3)}}, None, builders)
    answers = registry.build("processor", "answers", {}, "processors.answers.params")
    answers.load_state_dict({"answers": ["red", "1"], "spellings": ["red", "1"]})
    assert whole.with_known_answers(answers, 4).splits == {"train": {"visual_genome_qa": lengths.Split(2, 1, 1)}}
    answers.load_state_dict({"answers": ["answer0", "answer1"], "spellings": ["answer0", "answer1"]})  # stand-ins
    assert whole.with_known_answers(answers, 4).splits == whole.with_known_answers(None, 4).splits == whole.splits


def test_files_that_are_here_are_counted(tiny_config):
    """The tiny VQA: 12 images of three questions in train, two of which go together; 5 in val; 64 × 48, 48 × 64 or 60 × 60."""
    assumed = []
    found = lengths.measure(configuration.resolve(tiny_config), assumed)
    assert found.splits["train"]["vqa2"] == lengths.Split(36, 24, 12) and found.splits["val"]["vqa2"].samples == 15
    assert found.image_size in ((48, 64), (64, 48), (60, 60)) and assumed == []


def test_other_files_than_the_official_ones_that_are_not_here_are_unknown():
    found, assumed = of("mini/vqa2", "env.data_dir=/nowhere")
    assert found.splits == {"train": {}, "val": {}, "test": {}} and found.epoch({}) == (0, 0.0) and assumed == []
