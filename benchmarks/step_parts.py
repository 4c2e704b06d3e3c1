"""Where the time of a training step goes: batches, encoder, head, and optimiser.

python -m benchmarks.step_parts run_ner_crf.py --task_name conll2003 --data_dir DATA --model_name_or_path ENCODER

Takes the flags of the script. The parts follow each other, so their sum is the whole time; the first steps, in which
kernels are compiled, are left out. On a GPU each border between parts waits for it.
"""

import importlib
import sys
import time
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from analysis.compare_runs import Sheet, as_markdown
from callbacks import Backward, Callback, TrainState
from tools.script import run_script

_FIRST_STEPS = 5
PARTS = {
    "batches": "reading features, padding, copying to the device, logging",
    "encoder": "forward and backward",
    "head": "forward, loss and backward",
    "optimiser": "gradient norm, clipping, update and schedule",
}


class Parts(Callback):
    """Adds up the seconds of each part."""

    seconds: ClassVar[dict[str, float]] = defaultdict(float)
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        self._last = 0.0

    def on_train_begin(self, state: TrainState) -> None:
        encoder = cast(PreTrainedModel, state.model).base_model
        encoder.register_forward_pre_hook(lambda *_: self._end("batches"))
        encoder.register_forward_hook(self._after_encoder)
        self._last = time.perf_counter()

    def _after_encoder(self, encoder: object, inputs: object, output: Any) -> None:
        self._end("encoder")
        if output.last_hidden_state.requires_grad:
            output.last_hidden_state.register_hook(self._before_backward_of_encoder)

    def _before_backward_of_encoder(self, gradient: Tensor) -> None:
        self._end("head")

    def around_backward(self, state: TrainState, backward: Backward) -> Tensor:
        loss = backward()
        self._end("encoder")
        return loss

    def on_step(self, state: TrainState) -> None:
        self._end("optimiser")
        if state.step == _FIRST_STEPS:
            self.seconds.clear()
        type(self).steps = state.step - _FIRST_STEPS

    def _end(self, part: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    script, *given = sys.argv[1:]
    from benchmarks.step_parts import Parts  # the class that --callback finds, not that of __main__

    with TemporaryDirectory() as folder:
        flags = ["--callback=benchmarks.step_parts:Parts", "--evaluate_during_training=false", "--report_to=none"]
        sys.argv = [script, *given, *flags, "--do_train", "--save_steps=0", f"--output_dir={folder}/run"]
        with redirect_stdout(sys.stderr):  # standard output is for the table
            importlib.import_module(Path(script).stem).main()
    if Parts.steps <= 0:
        raise ValueError(f"the first {_FIRST_STEPS} steps are not timed: give more --max_steps")
    whole = sum(Parts.seconds.values())
    rows = [
        [f"{part}: {what}", f"{1000 * Parts.seconds[part] / Parts.steps:.1f}", f"{Parts.seconds[part] / whole:.1%}"]
        for part, what in PARTS.items()
    ]
    print(f"{Parts.steps} steps of {1000 * whole / Parts.steps:.1f} ms, {torch.get_num_threads()} threads\n")
    print(as_markdown(Sheet("", 1, ["part", "ms per step", "share"], rows)))


if __name__ == "__main__":
    run_script(main)
