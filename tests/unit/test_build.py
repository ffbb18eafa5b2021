"""A data set that is another task's is refused before anything is built."""

from pathlib import Path

import pytest

from pixelbert_plugin import registry
from pixelbert_plugin.build import require_suited
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Sample


def sample(images: int, answer: str | None) -> Sample:
    names = tuple(f"{number}.jpg" for number in range(images))
    answers = (answer,) if answer is not None and images == 1 else ()
    return Sample(sample_id=1, image_ids=names, images=tuple(map(Path, names)), text="a", answers=answers, answer=answer)


SETS = {"captions": sample(1, None), "questions": sample(1, "yes"), "statements": sample(2, "True")}
SUITED = {  # pre-training may read questions too, as LXMERT's does
    "pretrain": ("captions", "questions"),
    "retrieval": ("captions",),
    "vqa": ("questions",),
    "nlvr2": ("statements",),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("task", SUITED)
def test_a_data_set_of_another_task_is_refused(task, name):
    mixture = Mixture("train", {name: [SETS[name]]})
    if name in SUITED[task]:
        require_suited(task, registry.get("task", task), mixture)
        return
    with pytest.raises(UserError, match=rf"^task: '{task}' .*choose the task that suits datasets={name}"):
        require_suited(task, registry.get("task", task), mixture)


def test_a_split_without_answers_may_be_predicted():
    require_suited("vqa", registry.get("task", "vqa"), Mixture("test", {"vqa2": [SETS["captions"]]}))
