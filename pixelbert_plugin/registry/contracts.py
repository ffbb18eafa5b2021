"""Components held against their contracts (interfaces.py): when they are registered, as far as a class or function shows it,
and when they are built. What an optional member would be is filled in, so that nobody asks whether it is there."""

import dataclasses
import inspect
import types
from typing import Any

from pixelbert_plugin import interfaces

FROM_TORCH = "_forward_unimplemented"  # nn.Module's own `forward`
TABLES = ("_parameters", "_buffers", "_modules")  # of an nn.Module


@dataclasses.dataclass(frozen=True)
class Use:
    """A place that components of a kind are used in."""

    contract: type
    context: tuple[str, ...] = ()  # what it is built with, by name, besides its Config
    what: str = ""  # in a message: text processor; "" where the kind has one use alone
    is_built: bool = True  # False for a function that is used as it is
    learning: type | None = None  # the contract of one whose `needs_fit` is true


USES: dict[str, list[Use]] = {
    "model": [Use(interfaces.Model, ("vocab_size", "pad_token_id", "heads"))],
    "encoder": [
        Use(interfaces.ImageEncoder, (), "image encoder"),
        Use(interfaces.TextEncoder, ("vocab_size", "pad_token_id"), "text encoder"),
    ],
    "processor": [
        Use(interfaces.TextProcessor, (), "processor of text", learning=interfaces.LearningTextProcessor),
        Use(interfaces.ImageProcessor, (), "processor of image"),
        Use(interfaces.AnswersProcessor, (), "processor of answers", learning=interfaces.LearningAnswersProcessor),
    ],
    "builder": [Use(interfaces.Builder, ("data_dir", "cache_dir"))],
    "task": [Use(interfaces.Task, ("processors",)), Use(interfaces.MatchingTask, ("processors",))],
    "metric": [Use(interfaces.Metric, (), is_built=False)],
    "optimizer": [Use(interfaces.Optimizer, ("named_parameters",))],
    "scheduler": [Use(interfaces.Scheduler)],
    "precision": [Use(interfaces.Precision, ("device",))],
    "checkpoint_reader": [Use(interfaces.CheckpointReader)],
    "tracker": [Use(interfaces.Tracker)],
    "explanation": [Use(interfaces.Explanation)],
}


@dataclasses.dataclass
class Members:
    """What a contract asks for."""

    methods: dict[str, inspect.Signature] = dataclasses.field(default_factory=dict)  # required
    attributes: list[str] = dataclasses.field(default_factory=list)  # required
    optional: dict[str, Any] = dataclasses.field(default_factory=dict)  # with what stands for those that are not there


def members(contract: type) -> Members:
    """The members of a contract and of those it extends."""
    found = Members()
    for base in reversed(contract.__mro__):
        if base.__module__ != interfaces.__name__:
            continue
        found.attributes += [name for name in inspect.get_annotations(base) if name not in vars(base)]
        for name, value in vars(base).items():
            if getattr(value, "__isabstractmethod__", False):
                found.methods[name] = inspect.signature(value)
                found.optional.pop(name, None)
            elif not name.startswith("_"):
                found.optional[name] = value
    return found


def extended(contract: type) -> list[type]:
    """The contracts that ask for more than this one and are no use of their own: a model's for retrieval, say."""
    own = {use.contract for uses in USES.values() for use in uses}
    found = [each for each in vars(interfaces).values() if isinstance(each, type) and each.__module__ == interfaces.__name__]
    return [each for each in found if contract in each.__mro__[1:] and each not in own]


def config_of(component: Any) -> Any:
    """The `Config` on a class or function, the one thing that any component may do without; None where there is none."""
    return getattr(component, "Config", None)


def use_of(kind: str, component: Any) -> Use:
    """What a component of the kind is: of an encoder or processor, the use that it has most of."""
    uses = USES[kind]
    if kind == "task":
        return uses[bool(_found(_class_of(component), "scores_all_pairs"))]

    def fit(use: Use) -> int:
        return sum(1 if _has(component, name) else -1 for name in members(use.contract).methods)

    return max(uses, key=fit)


def of_registered(kind: str, component: Any) -> list[str]:
    """All that can be seen to be wrong with a component before it is built, in words."""
    use = use_of(kind, component)
    if not use.is_built:
        names = list(members(use.contract).methods["__call__"].parameters)[1:]
        takes = _refused(_signature(component), len(names))
        return [] if takes is None else [f"it is called with ({', '.join(names)}), but takes ({takes})"]
    found = problems(use.contract, component, is_built=False) if isinstance(component, type) else []
    has_config = config_of(component) is not None
    takes = _refused(_signature(component), int(has_config), use.context)
    is_late = not isinstance(component, type) and _refused(_signature(component), 1, use.context) is None
    if takes is not None and not is_late:  # a function can have its Config only below the decorator
        given = ", ".join([*(["config"] if has_config else []), *(f"{name}=…" for name in use.context)])
        found.append(f"it is built with ({given}){'' if has_config else ', as it has no Config'}, but takes ({takes})")
    return found


def problems(contract: type, component: Any, is_built: bool) -> list[str]:
    """All that is missing of a contract, in words. Of a class that is its methods; what `__init__` sets is seen later."""
    if not is_built and _delegates(component):
        return []
    wanted, missing, wrong = members(contract), [], []
    for name, signature in wanted.methods.items():
        names = list(signature.parameters)[1:]
        if not _has(component, name):
            missing.append(f"{name}({', '.join(names)})")
        elif (takes := _refused(*_method(component, name, len(names)))) is not None:
            wrong.append(f"{name} is called with ({', '.join(names)}), but takes ({takes})")
    if is_built:
        missing += [name for name in wanted.attributes if not _has(component, name)]
    return ([f"it lacks {', '.join(missing)}"] if missing else []) + wrong


def unlearned(use: Use, built: Any) -> list[str]:
    """All that is missing of what learns from data, in words; a contract's default, which keeps nothing, does not count."""
    if use.learning is None or not getattr(built, "needs_fit", False):
        return []
    wanted = members(use.learning).methods
    missing = [name for name in wanted if not _has(built, name) or getattr(built, name).__module__ == interfaces.__name__]
    if missing:
        lacks = ", ".join(f"{name}({', '.join(list(wanted[name].parameters)[1:])})" for name in missing)
        return [f"needs_fit is true, so that it must have {lacks}, by which checkpoints keep what it learns"]
    return problems(use.learning, built, is_built=True)


def use_named(kind: str, what: str) -> Use:
    return next(use for use in USES[kind] if use.what == what)


def complete(target: Any, contract: type) -> None:
    """Give a class, or what was built, the optional members that it leaves out."""
    for name, value in members(contract).optional.items():
        if not _has(target, name):
            is_method = isinstance(value, types.FunctionType) and not isinstance(target, type)
            setattr(target, name, types.MethodType(value, target) if is_method else value)


def takes_no_progress(schedule: Any) -> bool:
    """Whether a schedule is one of (update, epoch), which was all that it got before `linear` and `cosine`."""
    if not isinstance(schedule, type) or not _has(schedule, "__call__"):
        return False
    return _refused(*_method(schedule, "__call__", 3)) is not None and _refused(*_method(schedule, "__call__", 2)) is None


def ignore_progress(schedule: Any) -> None:
    former = schedule.__call__
    schedule.__call__ = lambda self, update, epoch, progress=0.0: former(self, update, epoch)


def _class_of(component: Any) -> type:
    return component if isinstance(component, type) else type(component)


def _found(of_class: type, name: str) -> Any:
    """What a class has by the name, as it is written there: no property is asked, and no metaclass."""
    return next((vars(base)[name] for base in of_class.__mro__ if name in vars(base)), None)


def _has(component: Any, name: str) -> bool:
    """Whether a class, or what was built, has such a member."""
    of_class = _class_of(component)
    if any(name in vars(base) for base in of_class.__mro__):
        found = _found(of_class, name)
        return not getattr(found, "__isabstractmethod__", False) and getattr(found, "__name__", "") != FROM_TORCH
    if isinstance(component, type):
        return False
    own = vars(component) if hasattr(component, "__dict__") else {}  # an nn.Module keeps what it holds in tables of its own
    return any(name in held for held in (own, *(own.get(table, ()) for table in TABLES))) or _delegates(of_class)


def _delegates(of_class: type) -> bool:
    """Whether a class answers for members that it does not show; an nn.Module does so for what it holds."""
    found = _found(of_class, "__getattr__")
    return found is not None and not found.__module__.startswith("torch.nn")


def _method(component: Any, name: str, count: int) -> tuple[inspect.Signature | None, int]:
    """A method's signature, and with how many arguments it is to be called so that it gets `count`."""
    if isinstance(component, types.FunctionType) and name == "__call__":
        return _signature(component), count
    found = _found(_class_of(component), name)
    if isinstance(found, staticmethod):
        return _signature(found.__func__), count
    if isinstance(found, classmethod):
        return _signature(found.__func__), count + 1
    if found is None:  # set in __init__
        return _signature(getattr(component, name)), count
    return (_signature(found), count + 1) if isinstance(found, types.FunctionType) else (None, count)


def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # written in C, or no function
        return None


def _refused(signature: inspect.Signature | None, count: int, named: tuple[str, ...] = ()) -> str | None:
    """The parameters of a function that does not take so many arguments and these by name; None where it does."""
    if signature is None:
        return None
    try:
        signature.bind(*[None] * count, **dict.fromkeys(named))
    except TypeError:
        bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
        return ", ".join(str(each) for each in bare if each.name != "self")
    return None
