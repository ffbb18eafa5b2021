"""Training without a device and without memory: the program's own forward and backward pass over tensors that have no data.

torch's fake tensors know shape, type and device and hold nothing, so that the model of a configuration "runs" on a GPU that
is not there: with that GPU's autocast lists, memory layouts and attention. Whatever a plugin's backbone, text encoder or task
does is therefore counted as it does it; nothing here knows a layer. What a run looks at (sizes of images, seeds) stays real
and is computed, so that `bool(tensor)` and `.tolist()` on them answer.

Every operation is seen by `DryRun`, which keeps the books: bytes that are alive, their highest number, floating-point
operations. What a kernel takes for itself while it runs is not seen; planning/memory.py adds constants for it.
"""

import heapq
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pixelbert_plugin.errors import UserError
from pixelbert_plugin.precision.native import Precision

aten = torch.ops.aten
NEEDED = (2, 14)  # of torch; 2.8 aborts at the first layer, those between were not tried


class DryRun(TorchDispatchMode):
    """The bookkeeper. Use `running` to enter it."""

    def __init__(self, device: torch.device):
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.live = 0  # bytes of fake tensors that exist now, gradients of weights left out
        self.gradients = 0  # bytes of those
        self.operations = 0
        self._alive: dict[int, weakref.ref[Any]] = {}  # by storage
        self._is_building = False
        self._learned: set[int] = set()  # weights that have a gradient
        self.forget_peaks()

    def forget_peaks(self) -> None:
        self.peak = self.live  # highest `live`
        self.peak_with_gradients = self.live + self.gradients

    @contextmanager
    def building(self) -> Iterator[None]:
        """Whatever is made meanwhile has no data, on the CPU too, where models are built."""
        self._is_building = True
        try:
            yield
        finally:
            self._is_building = False

    def forget_gradients(self) -> None:
        """As after the optimizer's step."""
        self.gradients = 0
        self._learned.clear()

    def add_gradient(self, weight: Tensor, gradient: Tensor) -> None:
        """A part of a weight's gradient. The first one stays, as a sum that the others are added to."""
        if id(weight) not in self._learned:
            self._learned.add(id(weight))
            self.gradients += weight.numel() * weight.element_size()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        named = [value for value in given if isinstance(value, torch.device)]
        is_fake = self._is_building or any(isinstance(value, FakeTensor) for value in given)
        if not is_fake and all(each.type == "cpu" for each in named):  # sizes and seeds, which the program looks at
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if (count := _counts(func)) is not None:
            self.operations += count(*args, **kwargs, out_val=result)
        for value in tree_leaves(result):
            if isinstance(value, FakeTensor):
                self._note(value)
        return result

    def _note(self, value: FakeTensor) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()

        def freed(_: Any) -> None:
            self.live -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)
        self.peak_with_gradients = max(self.peak_with_gradients, self.live + self.gradients)


def _counts(func: Any) -> Callable[..., int] | None:
    """What counts an operation's floating-point operations, a multiply-add as two; None where nothing is to be counted."""
    if func._overloadpacket is aten.convolution_backward:
        return _count_convolution_backward
    return cast("Callable[..., int] | None", flop_registry.get(func._overloadpacket))


def _count_convolution_backward(gradient: Tensor, values: Tensor, weight: Tensor, *others: Any, out_val: Any) -> int:
    """As many as forward for each gradient that is asked for, of the input and of the weight. (torch's own count is too high
    for grouped convolutions.)"""
    *_, is_transposed, _output_padding, _groups, is_wanted = others
    forward = 2 * (values if is_transposed else gradient).numel() * weight[0].numel()
    return forward * sum(is_wanted[:2])


class FusedAttention(TorchFunctionMode):
    """Attention as a GPU does it with a mask: one kernel that never forms the weights. torch chooses it by asking the driver,
    which may not be there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _fused_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = (each.to(dtype) for each in (query, key, value))
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
    bias = None
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=query.dtype).expand(*query.shape[:-1], key.shape[-2])
    has_gradient = torch.is_grad_enabled() and query.requires_grad
    return cast(
        Tensor,
        aten._scaled_dot_product_efficient_attention(query, key, value, bias, has_gradient, dropout_p, is_causal, scale=scale)[
            0
        ],
    )


@contextmanager
def running(device: torch.device) -> Iterator[DryRun]:
    """In it tensors on `device` hold no data, and the bookkeeper sees what becomes of them; models are made in `building`.

    Raises UserError where torch is too old for tensors of a GPU.
    """
    books, fake = DryRun(device), FakeTensorMode(allow_non_fake_inputs=True)
    if device.type == "cpu":
        with fake, books:
            yield books
        return
    if tuple(map(int, torch.__version__.split(".")[:2])) < NEEDED:
        raise UserError(
            f"torch {torch.__version__}: a plan needs torch {'.'.join(map(str, NEEDED))} or newer, since an older one ends the "
            "program at tensors of a GPU that is not there: pip install -U torch"
        )
    with _as_on_a_gpu(), fake, books, FusedAttention():
        yield books


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """What is recomputed in the backward pass asks for the state of the GPU's generator, where nothing is drawn here, and for
    autocast as in the forward pass, which torch would leave out."""
    common: Any = torch.cuda.amp.common
    with (
        _instead(torch.cuda, get_rng_state=lambda device="cuda": torch.get_rng_state()),
        _instead(torch.cuda, set_rng_state=lambda new_state, device="cuda": None),
        _instead(torch.cuda, is_bf16_supported=lambda including_emulation=True: True),
        _instead(common, amp_definitely_not_available=lambda: False),
    ):
        yield


@contextmanager
def _instead(module: Any, **functions: Any) -> Iterator[None]:
    """The module's functions exchanged meanwhile."""
    usual = {name: getattr(module, name) for name in functions}
    vars(module).update(functions)
    try:
        yield
    finally:
        vars(module).update(usual)


def move(model: nn.Module, device: torch.device) -> None:
    """`model.to(device)` for weights without data, which torch does not exchange in place. Weights that are shared stay so."""
    moved: dict[Tensor, Tensor] = {}

    def on_device(value: Tensor) -> Tensor:
        if value not in moved:
            there = value.detach().to(device)
            is_weight = isinstance(value, nn.Parameter)
            moved[value] = nn.Parameter(there, requires_grad=value.requires_grad) if is_weight else there
        return moved[value]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None and value.device != device:
                    tensors[name] = on_device(value)  # type: ignore[assignment]


class Autocasting:
    """A precision's autocast on a device that is not there: torch's own context asks for the GPU first.

    `precision` is one of the CPU; what it casts there to, it casts to on the GPU, by the GPU's lists of operations.
    """

    def __init__(self, precision: Precision, device: torch.device):
        self.precision, self.device = precision, device
        with precision.autocast():
            is_on = torch.is_autocast_enabled("cpu")
            self.dtype = torch.get_autocast_dtype("cpu") if is_on else None  # what products are computed in; None: as they are

    @contextmanager
    def autocast(self) -> Iterator[None]:
        if self.device.type == "cpu" or self.dtype is None:
            with self.precision.autocast():
                yield
            return
        usual = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        torch.autocast_increment_nesting()
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", self.dtype)
        try:
            yield
        finally:
            torch.clear_autocast_cache()
            torch.autocast_decrement_nesting()
            torch.set_autocast_enabled("cuda", usual[0])
            torch.set_autocast_dtype("cuda", usual[1])


def backward(losses: list[Tensor], learn: Callable[[Tensor, Tensor], None]) -> None:
    """The backward pass of the only one of `losses`, which is taken out, so that what is done with can be freed.

    It walks the graph as torch's engine does, later nodes first, but on this thread: the engine has one for each GPU, and there
    is none. `learn` is given every weight with each part of its gradient.
    """
    loss = losses.pop()
    waiting: dict[int, dict[int, Tensor]] = {}  # by node's number: gradients by output
    heap: list[tuple[int, Any]] = []

    def give(node: Any, number: int, gradient: Tensor) -> None:
        if isinstance(weight := getattr(node, "variable", None), Tensor):
            learn(weight, _as_wanted(gradient, weight))
            return
        place = node._sequence_nr()
        if place not in waiting:
            waiting[place] = {}
            heapq.heappush(heap, (-place, node))
        before = waiting[place].get(number)
        waiting[place][number] = gradient if before is None else before + gradient

    root = loss.grad_fn
    if root is None:
        return
    give(root, 0, torch.ones_like(loss))
    del loss, root
    while heap:
        place, node = heapq.heappop(heap)
        found = waiting.pop(-place)
        wanted = node._input_metadata
        given = [_as_wanted(found.pop(number), each) if number in found else None for number, each in enumerate(wanted)]
        call = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
        # one number for the whole walk: by it checkpointing knows what it has recomputed already
        with torch.no_grad(), _instead(torch._C, _current_graph_task_id=lambda: 0):
            results = call(*given)
        del given
        results = list(results) if isinstance(results, tuple) else [results]
        targets = node.next_functions
        del node, call
        for target, number in targets:
            gradient = results.pop(0)
            if target is not None and gradient is not None:
                give(target, number, gradient)
        del targets, target, gradient


def _as_wanted(gradient: Tensor, wanted: Any) -> Tensor:
    """A gradient in the type and shape of what it is of, as torch's engine gives it."""
    if tuple(gradient.shape) != tuple(wanted.shape):
        gradient = gradient.sum_to_size(*wanted.shape)
    return gradient if gradient.dtype == wanted.dtype else gradient.to(wanted.dtype)
