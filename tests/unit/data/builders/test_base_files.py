"""A data set whose files are not named says which YAML names them."""

import pytest

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError

SPLITS = {"vqa2": {"train": [{}]}, "coco": {"train": [{}]}, "nlvr2": {"train": [{}]}}
FIRST = {
    "coco": "splits.train[0].captions",
    "flickr30k": "karpathy",
    "nlvr2": "splits.train[0].statements",
    "visual_genome": "regions",
    "visual_genome_qa": "questions",
    "vqa2": "splits.train[0].questions",
}


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("method", ["files", "samples"])
def test_a_file_that_is_not_named_is_told_with_the_yaml_that_names_it(tmp_path, name, method):
    options = {"splits": SPLITS[name]} if name in SPLITS else {}
    builder = registry.build("builder", name, options, f"dataset_config.{name}", data_dir=tmp_path, cache_dir=None)
    with pytest.raises(UserError) as error:
        list(getattr(builder, method)("train"))
    expected = f"is not set; include datasets/{name}/defaults.yaml, which names the files"
    assert str(error.value) == f"dataset_config.{name}.{FIRST[name]}: {expected}"
