"""Names of all files in a run folder."""

import sys
from pathlib import Path

_SPLIT_NAMES = {"train": "train", "dev": "eval", "test": "test"}


class RunFolder:
    """Paths in the folder of a run or checkpoint; `tools.run_folder` reads and writes the files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights = path / "model.safetensors"
        self.config = path / "config.json"  # with labels; written last, so its presence means a complete model
        self.settings = path / "training_args.json"
        self.environment = path / "environment.json"
        self.log = path / "run.log"
        self.tensorboard = path / "tensorboard"
        self.report = path / "report.html"
        self.train_results = path / "train_results.json"
        self.nonfinite_steps = path / "nonfinite_steps.json"
        self.predictions = path / "test_predictions.jsonl"
        self.tag_predictions = path / "test_predictions.txt"  # a word and its tag per line; written by run_pl_ner.py
        self.submissions = path / "submission"  # predictions for the GLUE test splits, in the format of its server
        self.best_checkpoint = path / "checkpoint-best"  # the best model on dev
        self.transition_biases = path / "viterbi_calibration.json"  # written by tools.fit_transitions
        self.training_state = path / "training_state.pt"  # optimiser, schedule, position in the data, generators
        self.last_lightning_checkpoint = path / "last.ckpt"  # from which a Lightning run resumes

    def results(self, split: str, suffix: str = "json") -> Path:
        """Scores of a split, as JSON or as text."""
        return self.path / f"{_SPLIT_NAMES[split]}_results.{suffix}"

    def documents(self, split: str) -> Path:
        """Gold and predicted entities of a split."""
        return self.path / f"{_SPLIT_NAMES[split]}_documents.jsonl"

    def dial(self, split: str) -> Path:
        """What thresholds on probabilities give on a split; those of dev are what precision and recall are asked by."""
        return self.path / f"{_SPLIT_NAMES[split]}_dial.json"

    def submission(self, task: str) -> Path:
        return self.path / f"{task}_predict.json"

    def checkpoint(self, step: int | str) -> Path:
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[Path]:
        """Checkpoint folders with a complete model, sorted by step, the best one last."""
        folders = [path for path in self.path.glob("checkpoint-*") if RunFolder(path).config.is_file()]
        steps = {path: path.name.rpartition("-")[2] for path in folders}
        return sorted(folders, key=lambda path: int(steps[path]) if steps[path].isdigit() else sys.maxsize)

    def results_of_all_kinds(self) -> list[Path]:
        """All existing files with scores and predictions of the run."""
        suffixes = ("results.*", "documents.jsonl", "dial.json")
        scored = [f"{split}_{suffix}" for split in ("eval", "test") for suffix in suffixes]
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
            self.dial("dev"): "precision and recall of thresholds",
            self.results("test"): "scores of test",
            self.documents("test"): "entities of test, gold and predicted",
            self.predictions: "predictions of test",
            self.report: "report",
        }
