"""What a table's splits are taken for."""

import pytest

from pixelbert_plugin.data.proposal import splits_of, unused


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["train", "dev", "eval"], {}, {"train": "train", "val": "dev", "test": "eval"}),
        (["eval", "dev", "train"], {}, {"train": "train", "val": "dev", "test": "eval"}),  # in whatever order
        (["train", "eval", "test"], {}, {"train": "train", "val": "eval", "test": "test"}),
        (["train", "Evaluation"], {}, {"train": "train", "val": "Evaluation"}),
        (["train", "val", "test", "eval"], {}, {"train": "train", "val": "val", "test": "test"}),
        (["train", "eval", "evaluation"], {}, {"train": "train"}),  # which is which is open
        (["train", "dev", "validation"], {}, {"train": "train"}),
        (["train", "dev", "validation", "eval"], {}, {"train": "train", "test": "eval"}),
        (["train", "dev", "val"], {}, {"train": "train", "val": "val"}),
        (["train", "Train", "TEST"], {}, {"train": "train", "test": "TEST"}),
        (["trn", "training"], {}, {}),
        (["a", "b", "val"], {"train": "a", "val": "b"}, {"train": "a", "val": "b"}),
        (["train", "dev", "eval"], {"val": "eval"}, {"train": "train", "val": "eval"}),
    ],
)
def test_splits_by_name(names, given, expected):
    assert splits_of(names, given) == expected


def test_what_is_not_used_is_told():
    use = {"train": "train", "val": "dev"}
    assert list(unused({"train": 3, "dev": 2}, use, "")) == []
    assert list(unused({"train": 3, "a": 2000, "dev": 2, "b": 1}, use, "t: ")) == [
        "t: 'a' (2,000 rows), 'b' (1 row) are not taken for train, val or test, and left out; use={test: a} takes the first"
    ]
    (told,) = unused({str(n): 10 for n in range(8)} | {"train": 1}, {"train": "train"}, "")
    assert told.startswith("'0' (10 rows), ") and "'4' (10 rows) and 3 more (80 rows in all) are" in told
