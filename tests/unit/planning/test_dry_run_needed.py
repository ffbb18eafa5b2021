"""Plans where torch is older than they need."""

import pytest
import torch

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.planning import dry_run


def test_an_older_torch_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(dry_run, "NEEDED", (99, 0))
    with pytest.raises(UserError, match=r"a plan needs torch 99\.0 or newer, .*pip install -U torch"):  # noqa: SIM117
        with dry_run.running(torch.device("cuda", 0)):
            pass
    with dry_run.running(torch.device("cpu")) as books:
        assert books.live == 0
