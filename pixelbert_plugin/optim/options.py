"""The options of the optimizers here, by themselves, so that they are read and checked without torch."""

from dataclasses import dataclass, field

from pixelbert_plugin.registry.schema import require


@dataclass(kw_only=True)
class SgdConfig:
    lr: float = 1e-2  # learning rate (paper)
    momentum: float = 0.9  # the paper names none; torchvision's ImageNet recipe
    weight_decay: float = 5e-4  # (paper) on kernels and matrices; biases and norms have none, which the paper does not say
    nesterov: bool = False  # Nesterov's momentum

    def check(self) -> None:
        require(self, "lr", "weight_decay", low=0, high=1e6)
        require(self, "momentum", low=0, high=1)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum above 0")


@dataclass(kw_only=True)
class AdamWConfig:
    lr: float = 1e-4  # learning rate (paper)
    weight_decay: float = 1e-2  # (paper) decoupled, on matrices; biases, norms and s_v have none: our choice
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # torch's; the paper names none
    eps: float = 1e-8  # torch's; the paper names none

    def check(self) -> None:
        require(self, "lr", "weight_decay", low=0, high=1e6)
        require(self, "eps", above=0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas: needs two values in 0…1, below 1")
