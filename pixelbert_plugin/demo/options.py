"""What `pixelbert-demo` is told, by itself, so that it is read and checked without torch."""

from dataclasses import dataclass

from pixelbert_plugin.registry.schema import FilePath, require


@dataclass(kw_only=True)
class DemoConfig:
    checkpoint: FilePath = (
        ""  # a run's or checkpoint's folder, an exported file, a name of the hub. "": the package's own model
    )
    images: FilePath | None = None  # the folder that is searched by texts, where the model can do that
    host: str = "127.0.0.1"  # the address to listen at: this machine alone. 0.0.0.0: whoever reaches it
    port: int = 7860  # to listen at; 0: one that is free
    open_browser: bool = False  # show the page in this machine's browser
    max_upload_mb: float = 20  # MB (10⁶ bytes) of a file that a visitor may upload
    explain: str | None = None  # the method that says where an answer comes from, by its name. None: the best known
    top_k: int = 5  # how many answers, words or images are shown, the best first
    device: str = "auto"  # cpu, cuda, cuda:1, …; auto: cuda where there is one
    precision: str = "fp32"  # what the model computes in, by its registered name: bf16 takes less time
    user_dir: FilePath | None = None  # the plugin of the run, where it was moved. None: where the run had it

    def check(self) -> None:
        require(self, "top_k", low=1)
        require(self, "port", low=0, high=65535)
        require(self, "max_upload_mb", above=0)
