"""What is done for show ends no run."""

import pytest

from pixelbert_plugin.errors import Stopped, UserError
from pixelbert_plugin.system.cosmetic import Cosmetic


def test_what_cannot_be_found_to_show_ends_no_run_but_a_stop_does(caplog):
    """An error of the user's data is one more reason to leave a picture out; SIGTERM is none."""
    cosmetic = Cosmetic("pictures")

    def fail(error):
        raise error

    with pytest.raises(Stopped):
        cosmetic.attempt(lambda: fail(Stopped("by SIGTERM")))
    assert not cosmetic.has_failed
    cosmetic.attempt(lambda: fail(UserError("too few texts")))
    assert cosmetic.has_failed and "pictures: left out from here on (UserError: too few texts); the run goes on" in caplog.text
