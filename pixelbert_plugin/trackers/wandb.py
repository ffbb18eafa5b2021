"""Weights & Biases: scalars, texts, pictures and options, online or, in `<run>/wandb`, for a later `wandb sync`."""

import contextlib
import importlib.util
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError, replacing
from pixelbert_plugin.interfaces import Tracker
from pixelbert_plugin.types import TrackedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = "update"  # what charts are drawn over; W&B's own step only counts what was logged
RUN_ID = "wandb_run_id.txt"  # in the run's folder, so that a resumed training goes on in the same run of W&B's


@registry.register_tracker("wandb")
class WandB(Tracker):
    """Weights & Biases (pip install 'pixelbert_plugin[wandb]'); mode offline needs no network and no account."""

    @dataclass(kw_only=True)
    class Config:
        project: str = "pixelbert"  # of W&B's
        entity: str | None = None  # user or team. None: the account's default
        mode: Literal["online", "offline", "disabled"] | None = None  # None: as WANDB_MODE says, else online

    def __init__(self, config: Config):
        """Raises UserError where the package is not installed."""
        self.config = config
        self._run: Any = None
        if importlib.util.find_spec("wandb") is None:
            raise UserError("trackers: wandb is not installed; pip install 'pixelbert_plugin[wandb]', or leave wandb out")

    def begin(self, run: TrackedRun) -> None:
        """A training from the start is a new run; a resumed one goes on in its own. Lines past the resumed update stay there
        twice: W&B cannot take them back."""
        import wandb

        kept, run_id = run.folder / RUN_ID, None
        if run.resumed_update:
            with contextlib.suppress(OSError):
                run_id = kept.read_text(encoding="utf-8").strip()
        run_id = run_id or uuid.uuid4().hex[:12]
        with replacing(kept) as aside:
            aside.write_text(f"{run_id}\n", encoding="utf-8")
        changed = {name: run.options[name] for name in run.changed}
        self._run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            mode=self.config.mode,
            id=run_id,
            name=run.name,
            dir=str(run.folder),
            config={**changed, **run.options},
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)

    def scalars(self, values: dict[str, float], update: int) -> None:
        self._run.log({**values, STEP: update})

    def texts(self, values: dict[str, str], update: int) -> None:
        import html

        import wandb

        shown = {name: wandb.Html(f"<pre>{html.escape(text)}</pre>") for name, text in values.items()}
        self._run.log({**shown, STEP: update})

    def picture(self, name: str, figure: "Figure", update: int) -> None:
        import io

        import PIL.Image
        import wandb

        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=100)
        self._run.log({name: wandb.Image(PIL.Image.open(written)), STEP: update})

    def final(self, metrics: dict[str, float]) -> None:
        self._run.summary.update({f"final/{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
