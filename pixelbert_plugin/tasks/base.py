"""What a task is made of, in one place: its contracts and its results."""

from pixelbert_plugin.interfaces import MatchingTask, Task
from pixelbert_plugin.types import Result

__all__ = ["MatchingTask", "Result", "Task"]
