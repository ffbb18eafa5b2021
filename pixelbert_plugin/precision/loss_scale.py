"""The loss scale of float16 training: gradients are multiplied by it, so that small ones do not become 0 in float16."""

import math

from pixelbert_plugin.errors import NonFiniteLossError

SMALLEST = 1e-4  # about thirty skipped updates below 2^16: no gradient is finite, whatever the scale


class LossScale:
    """A factor on the loss, fixed or dynamic: halved by an update whose gradient is not finite, doubled after many that are.

    torch.amp.GradScaler decides for each optimizer apart, so that one moves while another is skipped, and refuses float16
    gradients; here the caller decides once for all optimizers. The sequence of scales is GradScaler's.
    """

    def __init__(
        self,
        initial: float = 65536.0,  # 2^16, as GradScaler and Apex
        is_dynamic: bool = True,
        growth_interval: int = 2000,  # updates in a row with finite gradients before it is doubled
        largest: float = math.inf,
    ):
        self.value = min(initial, largest)
        self.is_dynamic = is_dynamic
        self.growth_interval = growth_interval
        self.largest = largest
        self.clean_updates = 0  # since it changed last
        self.skipped_updates = 0

    def update(self, is_skipped: bool) -> None:
        """Once per update. Raises NonFiniteLossError where halving does not help any more."""
        if not self.is_dynamic:
            return
        if is_skipped:
            self.value /= 2
            self.clean_updates = 0
            self.skipped_updates += 1
            check_scale(self.value)
            return
        self.clean_updates += 1
        if self.clean_updates == self.growth_interval:
            self.value = min(self.value * 2, self.largest)
            self.clean_updates = 0

    def state_dict(self) -> dict[str, float | int]:
        """Empty for a fixed scale, which is the configuration's."""
        if not self.is_dynamic:
            return {}
        return {
            "loss_scale": self.value,
            "clean_updates": self.clean_updates,
            "skipped_updates": self.skipped_updates,
        }

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Take a state over, of any precision's dynamic scale; `{}` and a fixed scale change nothing."""
        if self.is_dynamic and state:
            self.value = min(float(state["loss_scale"]), self.largest)
            self.clean_updates = min(int(state["clean_updates"]), self.growth_interval - 1)
            self.skipped_updates = int(state["skipped_updates"])


def check_scale(value: float) -> None:
    """Raise NonFiniteLossError where the dynamic scale has sunk so far that the fault is not float16's range."""
    if value < SMALLEST:
        raise NonFiniteLossError(
            f"the loss scale has sunk to {value:.1e}: update after update the gradient is not finite. Lower the learning "
            "rates, or train with training.precision=bf16 or fp32; checkpoints hold the state before"
        )
