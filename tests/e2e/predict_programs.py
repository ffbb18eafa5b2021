"""A program of test_predict.py, started as a process of its own (preloaded.py)."""

import signal


def predict_then_stall(arguments: list[str]) -> None:
    """`pixelbert-predict` with torch's threads, the first argument, as in the test; it stalls within the third write."""
    import torch

    from pixelbert_plugin.asking.journal import Journal
    from pixelbert_plugin.commands import predict

    torch.set_num_threads(int(arguments[0]))
    write, calls = Journal._write, []

    def stalling(self, lines):
        calls.append(lines)
        if len(calls) < 4:  # of which the first says what is asked
            return write(self, lines)
        self._file.write(b'{"row": 5, "image": "half a ')
        self._file.flush()
        signal.pause()

    Journal._write = stalling
    predict.main(arguments[1:])
