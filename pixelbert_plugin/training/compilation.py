"""torch.compile of a model's blocks, one by one (`training.compile: blocks`), in training alone.

Blocks that are alike, such as a transformer's layers, are compiled once. All sizes are dynamic from the first compilation on,
and no two that happen to be equal are taken for one: then what is compiled depends on the kinds of inputs that come (with or
without gradient, padding, a size of 1), never on which sizes came first, so that a resumed run computes what the unbroken one
does. Of one kind of block there are at most LIMIT compilations; what would need another one is computed as it is written.

An evaluation computes as without: what it gives is a function of the weights, on any number of processes.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import FunctionType
from typing import Any, cast

import torch
from torch import nn

from pixelbert_plugin.checkpoint.weights import one_line
from pixelbert_plugin.interfaces import Model
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.types import CompileUnit

logger = logging.getLogger(__name__)

KEY = "training.compile"
LIMIT = 8  # of one kind of block: with and without gradient, padded, of one image, of one text; the last layer's own


class Compilation:
    """What a run compiles, and how often it did."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[Any, ...], _Kind] = {}
        self.seconds = 0.0  # that calls took in which something was compiled

    @property
    def count(self) -> int:
        return sum(kind.count for kind in self.kinds.values())

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Around the training: torch's settings that compilations need."""
        from torch._dynamo import config as dynamo
        from torch._functorch import config as functorch
        from torch.fx.experimental import _config as shapes

        wanted: tuple[tuple[Any, dict[str, bool]], ...] = (
            # DDP's gradients are exchanged block by block as it is; torch would cut the blocks into its buckets. Numbers that
            # are no sizes (a norm's eps) are constants of a block: where all are dynamic torch begins twice
            (dynamo, {"optimize_ddp": False, "specialize_float": True}),
            (functorch, {"force_non_lazy_backward_lowering": True}),  # what cannot be compiled is known before the forward pass
            (shapes, {"use_duck_shape": False}),  # sizes that are equal by chance are two sizes
        )
        # a compiled 1×1 convolution may give its gradient in another layout of the same order, which DDP copies
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        with ExitStack() as settings:
            for config, values in wanted:  # an older torch has not all of them
                settings.enter_context(config.patch({name: value for name, value in values.items() if hasattr(config, name)}))
            yield

    def __str__(self) -> str:
        blocks = sum(len(kind.units) for kind in self.kinds.values())
        given_up = sum(len(kind.units) for kind in self.kinds.values() if kind.is_given_up)
        told = f"{KEY}: {self.count} compilations for {len(self.kinds)} kinds of {blocks} blocks, {self.seconds:.0f} s"
        return f"{told}; {given_up} blocks run uncompiled" if given_up else told


class _Kind:
    """Blocks that are alike, and share what is compiled."""

    def __init__(self, whole: Compilation, name: str, function: Callable[..., Any]):
        self.whole, self.name = whole, name
        self.units: list[CompileUnit] = []
        self.count = 0
        self.is_given_up = False
        self._is_told = False

        def block(*inputs: Any, **named: Any) -> Any:
            return function(*inputs, **named)

        # torch keeps what it has compiled, and its own limit, by code object: each kind has its own
        code = block.__code__.replace(co_name=f"{name}_{len(whole.kinds)}")
        own = FunctionType(code, block.__globals__, code.co_name, None, block.__closure__)
        self._compiled = torch.compile(own, fullgraph=True, dynamic=True, backend=self._compile)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Kind":
        return self  # a model's copy shares what is compiled

    def _compile(self, graph: Any, inputs: Any) -> Any:
        from torch._inductor.compile_fx import compile_fx

        self.count += 1
        return compile_fx(graph, inputs)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Raises what `errors()` names where the block cannot be compiled."""
        is_full = self.count >= LIMIT
        if is_full and not self._is_told:
            self._is_told = True
            logger.warning(
                "%s: %s was compiled %d times, for inputs that differ in more than their sizes; what would need another one "
                "runs uncompiled",
                KEY,
                self.name,
                self.count,
            )
        before, began = self.count, time.perf_counter()
        with torch.compiler.set_stance("eager_on_recompile") if is_full else nullcontext():
            result = self._compiled(*inputs, **named)
        if self.count != before:
            self.whole.seconds += time.perf_counter() - began
        return result

    def give_up(self, error: Exception) -> None:
        self.is_given_up = True
        logger.warning("%s: %s cannot be compiled (%s), and runs uncompiled", KEY, self.name, one_line(error))


def compile_blocks(model: nn.Module, name: str, device: torch.device, but: nn.Module | None = None) -> Compilation:
    """Compile the model's `compile_units()` in training, in place, and none inside `but`; `name`: of the model, for errors.

    Only `forward` is wrapped, so that names of weights stay and hooks (FSDP's) run as before. Raises ConfigError where torch
    cannot compile here, or the model has no such blocks.
    """
    units = cast(Model, model).compile_units()
    if not units:
        raise ConfigError(KEY, f"'blocks', but the model {name!r} has none (compile_units() or shard_units()); set it to none")
    require_compiler(device)
    left_out = set() if but is None else set(but.modules())
    whole = Compilation()
    for unit in (part for each in units for part in _opened(each)):
        if unit.module in left_out:
            continue
        function = unit.function or type(unit.module).forward
        key = (function, str(unit.module))  # which shows sizes and strides
        if key not in whole.kinds:
            whole.kinds[key] = _Kind(whole, type(unit.module).__name__, function)
        whole.kinds[key].units.append(unit)
        unit.module.forward = partial(_forward, model, whole.kinds[key], unit, unit.module.forward)
    return whole


def _forward(model: nn.Module, kind: _Kind, unit: CompileUnit, forward: Any, *inputs: Any, **named: Any) -> Any:
    if kind.is_given_up or not model.training:
        return forward(*inputs, **named)
    try:
        if unit.inputs is None:
            return kind(unit.module, *inputs, **named)
        return kind(unit.module, *unit.inputs(*inputs, **named))
    except errors() as error:  # of the compilation: nothing was computed yet
        kind.give_up(cast(Exception, error))
        return forward(*inputs, **named)


def errors() -> tuple[type[BaseException], ...]:
    """What torch raises where it cannot compile."""
    from torch._dynamo import exc

    return exc.TorchDynamoException, exc.FailOnRecompileLimitHit


def _opened(unit: CompileUnit) -> list[CompileUnit]:
    """The parts of a plain sequence of blocks, which may be alike; any other unit as it is."""
    module = unit.module
    if unit.function is not None or type(module).forward is not nn.Sequential.forward:
        return [unit]
    parts = list(module.children())
    if not parts or not all(any(True for _ in part.children()) for part in parts):
        return [unit]  # of a convolution, a norm and an activation: they belong together
    return [each for part in parts for each in _opened(CompileUnit(part))]


def require_compiler(device: torch.device) -> None:
    """Raise ConfigError where torch cannot compile: a new enough Python, a C++ compiler (a GPU: Triton and a C compiler)."""
    try:
        if device.type == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # what follows may find its work done by an earlier run
        torch.compile(_tried, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:  # anything may be missing
        needs = "a C++ compiler (apt-get install g++, or CXX=PATH)" if device.type == "cpu" else "Triton and a C compiler"
        raise ConfigError(
            KEY, f"'blocks', but torch.compile does not work here ({one_line(error)}); it needs {needs}; or set it to none"
        ) from error


def _tried(values: torch.Tensor) -> torch.Tensor:
    return values.sin() + 1
