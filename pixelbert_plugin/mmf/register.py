"""Every component of ours that MMF has a kind for, put into MMF's registry."""

from collections.abc import Callable
from typing import Any

from pixelbert_plugin import registry
from pixelbert_plugin.mmf.names import PREFIX, registered
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.registry.schema import Kind


def register_all(user_dir: str | None = None, modules: list[str] | None = None) -> None:
    """Load our components, and the user's, and register a wrapper of each. MMF must be imported; twice does nothing new."""
    from mmf.common.registry import registry as mmf_registry

    from pixelbert_plugin.mmf.data import wrap_builder
    from pixelbert_plugin.mmf.encoders import wrap_encoder
    from pixelbert_plugin.mmf.metrics import NAME as METRIC
    from pixelbert_plugin.mmf.metrics import TaskMetrics
    from pixelbert_plugin.mmf.model import wrap_model
    from pixelbert_plugin.mmf.optim import NAME as OPTIMIZER
    from pixelbert_plugin.mmf.optim import JointOptimizer, wrap_scheduler
    from pixelbert_plugin.mmf.processors import wrap_processor
    from pixelbert_plugin.mmf.reporter import NAME as REPORTER
    from pixelbert_plugin.mmf.reporter import SplitReporter

    plugins.load(user_dir, modules)
    wrappers: dict[Kind, tuple[Callable[[str, str], Any], Callable[[str], Any]]] = {
        "model": (wrap_model, mmf_registry.register_model),
        "encoder": (wrap_encoder, mmf_registry.register_encoder),
        "processor": (wrap_processor, mmf_registry.register_processor),
        "builder": (wrap_builder, mmf_registry.register_builder),
        "scheduler": (lambda own, name: wrap_scheduler(own), mmf_registry.register_scheduler),
    }
    for kind, (wrap, register) in wrappers.items():
        for own in registry.names(kind):
            name = f"{PREFIX}{own}"
            if name in registered(kind):
                continue
            names = [name] if own in registered(kind) else [own, name]  # MMF's own of the name stays
            wrapper = wrap(own, names[0])
            for each in names if wrapper is not None else []:
                register(each)(wrapper)
    mmf_registry.register_metric(METRIC)(TaskMetrics)
    mmf_registry.register_optimizer(OPTIMIZER)(JointOptimizer)
    mmf_registry.register_test_reporter(REPORTER)(SplitReporter)


def user_plugins() -> tuple[str | None, list[str] | None]:
    """`plugins: [module]` of the YAML that MMF is reading; its env.user_dir is us."""
    from mmf.common.registry import registry as mmf_registry

    configuration: Any = mmf_registry.get("configuration", no_warning=True)
    return None, list(getattr(configuration, "_user_config", {}).get("plugins", None) or [])
