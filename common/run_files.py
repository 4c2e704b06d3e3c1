"""Names of all files in a run folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

_SPLIT_NAMES = {"train": "train", "dev": "eval", "test": "test"}


@dataclass(frozen=True)
class RunFolder:
    """Paths in the folder of a run or checkpoint; `tools.run_folder` reads and writes the files."""

    path: Path

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def config(self) -> Path:
        """Model config with labels; written last, so its presence means that the model is complete."""
        return self.path / "config.json"

    @property
    def settings(self) -> Path:
        return self.path / "training_args.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def train_results(self) -> Path:
        return self.path / "train_results.json"

    @property
    def nonfinite_steps(self) -> Path:
        return self.path / "nonfinite_steps.json"

    def results(self, split: str, suffix: str = "json") -> Path:
        """Scores of a split, as JSON or as text."""
        return self.path / f"{_SPLIT_NAMES[split]}_results.{suffix}"

    def documents(self, split: str) -> Path:
        """Gold and predicted entities of a split."""
        return self.path / f"{_SPLIT_NAMES[split]}_documents.jsonl"

    @property
    def predictions(self) -> Path:
        return self.path / "test_predictions.jsonl"

    @property
    def tag_predictions(self) -> Path:
        """Predictions in columns, one word and tag per line; written by run_pl_ner.py."""
        return self.path / "test_predictions.txt"

    def submission(self, task: str) -> Path:
        return self.path / f"{task}_predict.json"

    @property
    def submissions(self) -> Path:
        """Predictions for the GLUE test splits, in the format of its server."""
        return self.path / "submission"

    @property
    def best_checkpoint(self) -> Path:
        """The best model on dev."""
        return self.path / "checkpoint-best"

    def checkpoint(self, step: int | str) -> Path:
        return self.path / f"checkpoint-{step}"

    @property
    def training_state(self) -> Path:
        """State of a checkpoint: optimiser, schedule, position in the data, random number generators."""
        return self.path / "training_state.pt"

    @property
    def last_lightning_checkpoint(self) -> Path:
        """Checkpoint from which a Lightning run resumes."""
        return self.path / "last.ckpt"

    def checkpoints(self) -> list[Path]:
        """Checkpoint folders with a complete model, sorted by step, the best one last."""
        folders = [path for path in self.path.glob("checkpoint-*") if RunFolder(path).config.is_file()]
        steps = {path: path.name.rpartition("-")[2] for path in folders}
        return sorted(folders, key=lambda path: int(steps[path]) if steps[path].isdigit() else sys.maxsize)

    def results_of_all_kinds(self) -> list[Path]:
        """All existing files with scores and predictions of the run."""
        scored = [name for split in ("eval", "test") for name in (f"{split}_results.*", f"{split}_documents.jsonl")]
        others = (self.train_results, self.predictions, self.tag_predictions, self.nonfinite_steps, self.report)
        patterns = (*scored, "*_predict.json", *(path.name for path in others))
        return [path for pattern in patterns for path in self.path.glob(pattern)]

    def described(self) -> dict[Path, str]:
        """The main files with a short description each."""
        return {
            self.weights: "weights",
            self.config: "config and labels",
            self.settings: "settings",
            self.environment: "versions and machine",
            self.log: "log",
            self.tensorboard: "curves",
            self.train_results: "steps, loss, speed",
            self.results("dev"): "scores of dev",
            self.documents("dev"): "entities of dev, gold and predicted",
            self.results("test"): "scores of test",
            self.documents("test"): "entities of test, gold and predicted",
            self.predictions: "predictions of test",
            self.report: "report",
        }
