"""Hyper-parameter search over the flags of a training script, by Optuna; an interrupted search resumes.

python -m tools.sweep sweep.yaml

Each trial is a run of the script in a folder of its own. ``docs/training.md`` explains the file.
"""

import json
import logging
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from analysis.compare_runs import Sheet, as_markdown
from common.command_line import CommandLine, YamlLoader
from common.durable import atomic_write
from common.log import console, console_table, setup_logging
from common.run_files import RunFolder
from tools.run_folder import lock_run_folder
from tools.script import run_script

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger("tools.sweep")  # also when it is the main module
_USAGE_ERROR = 2  # exit status
_FAILURES_IN_A_ROW = 3
_OWN_FLAGS = ("output_dir", "do_train", "do_eval", "resume_from_checkpoint", "overwrite_output_dir", "config_file")
_RANGE = {"from", "to", "log", "step"}


@dataclass(frozen=True)
class Sweep:
    """What to search, as in the file.

    Args:
        output_dir: folder of the search, with a run folder per trial.
        search: by flag, a list of values, or a range: ``{from: 1e-5, to: 1e-3, log: true}``; with whole numbers as
            ends, and optionally a ``step``, its values are whole numbers.
        flags: flags of every trial.
        script: training script.
        metric: score of dev to improve, a key of eval_results.json; ``loss`` is minimised.
        trials: number of trials.
        seed: random seed of the search.
    """

    output_dir: Path
    search: Mapping[str, Any]
    flags: Mapping[str, Any] = field(default_factory=dict)
    script: str = "run_ner_crf.py"
    metric: str = "f1"
    trials: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if not (self.search and isinstance(self.search, dict)):
            faults.append("search names no flags")
        for name, space in self.search.items() if isinstance(self.search, dict) else ():
            if isinstance(space, list) and space:
                continue
            if not (isinstance(space, dict) and {"from", "to"} <= space.keys() <= _RANGE):
                faults.append(f"search: {name}: expected a list of values, or a range as in {{from: 1e-5, to: 1e-3}}")
            elif not all(isinstance(space[end], int | float) for end in ("from", "to")) or space["from"] > space["to"]:
                faults.append(f"search: {name}: a range goes from a number to a larger one")
        given = [*self.search, *self.flags] if not faults else []
        faults += [f"the sweep sets --{name} itself" for name in given if name in _OWN_FLAGS]
        faults += [f"{name} is both in flags and in search" for name in self.search if name in self.flags]
        if self.trials < 1:
            faults.append(f"trials {self.trials}: at least one")
        if not Path(self.script).is_file():
            faults.append(f"there is no script {self.script}")
        if faults:
            raise ValueError("; ".join(faults))

    @classmethod
    def read(cls, path: Path) -> "Sweep":
        """Read a YAML file.

        Raises:
            ValueError: lists what is wrong with the file.
        """
        try:
            content = yaml.load(path.read_text("utf-8"), YamlLoader)
            known = {one.name for one in fields(cls)}
            if not isinstance(content, dict) or not {"output_dir", "search"} <= content.keys() <= known:
                raise ValueError(f"expected output_dir and search, and perhaps {', '.join(sorted(known))}")
            return cls(**{**content, "output_dir": Path(content["output_dir"])})
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def minimises(self) -> bool:
        return self.metric == "loss"

    def command(self, folder: Path, parameters: Mapping[str, Any]) -> list[str]:
        """Command line of a trial, which resumes it if it was interrupted."""
        flags = {**self.flags, **parameters, "output_dir": folder, "do_train": True, "do_eval": True}
        run = RunFolder(folder)
        states = (run.last_lightning_checkpoint, *(RunFolder(one).training_state for one in run.checkpoints()))
        if any(state.is_file() for state in states):
            flags["resume_from_checkpoint"] = "auto"
        elif folder.exists():
            flags["overwrite_output_dir"] = True
        return [sys.executable, self.script, *(f"--{name}={value}" for name, value in flags.items())]


def main() -> None:
    parser = CommandLine(description="Search hyper-parameters: trials of a training script, chosen by Optuna.")
    parser.add_argument("sweep", type=Path, help="YAML file: output_dir, script, metric, trials, flags, search")
    args = parser.parse_args()
    if not args.sweep.is_file():
        parser.error(f"there is no file {args.sweep}")
    run_sweep(Sweep.read(args.sweep))


def run_sweep(sweep: Sweep) -> None:
    """Run the trials that are missing, and write table and plot after each.

    Raises:
        ValueError: the script refuses the flags, or several trials in a row fail.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the trial under way is told
    folder = sweep.output_dir
    lock_run_folder(folder)
    setup_logging(folder, anew=not (folder / "study.journal").is_file())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
        direction="minimize" if sweep.minimises else "maximize",
        load_if_exists=True,
    )
    # The state of the sampler is not stored: the same seed would propose the same random trials again.
    study.sampler = optuna.samplers.TPESampler(seed=sweep.seed + len(study.trials))
    states = optuna.trial.TrialState
    for left in study.get_trials(states=(states.RUNNING,)):  # of a search that was interrupted
        study.enqueue_trial(left.params, {"folder": left.user_attrs.get("folder", f"trial-{left.number:04d}")})
        study.tell(left.number, state=states.FAIL)
    failures = 0
    while (done := len(study.get_trials(states=(states.COMPLETE,)))) < sweep.trials:
        trial = study.ask()
        score = _run_trial(sweep, trial)
        if score is None:
            study.tell(trial, state=states.FAIL)
            failures += 1
            if failures == _FAILURES_IN_A_ROW:
                raise ValueError(f"{failures} trials in a row failed; see the logs in {folder}")
            continue
        failures = 0
        study.tell(trial, score)
        best = study.best_trial
        message = "Trial %d of %d: %s %.4f (best %.4f, %s)"
        logger.info(message, done + 1, sweep.trials, sweep.metric, score, best.value, best.user_attrs["folder"])
        _write_results(sweep, study)
    sheet = _table(sweep, study)
    console().print(console_table(sheet.columns, sheet.rows, sheet.names, sheet.title))


def _run_trial(sweep: Sweep, trial: "optuna.Trial") -> float | None:
    """The score of a trial; ``None`` if it failed.

    Raises:
        ValueError: the script refuses the flags, so that every trial would fail.
    """
    parameters = {name: _suggested(trial, name, space) for name, space in sweep.search.items()}
    folder = sweep.output_dir / trial.user_attrs.get("folder", f"trial-{trial.number:04d}")
    trial.set_user_attr("folder", folder.name)
    command, log = sweep.command(folder, parameters), folder.with_suffix(".log")
    logger.info("%s: %s", folder.name, ", ".join(f"{name} {value}" for name, value in parameters.items()))
    with log.open("ab") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            status = process.wait()
        except BaseException:
            process.terminate()  # it saves a checkpoint, from which the trial resumes
            raise
    if status == 0:
        scores = json.loads(RunFolder(folder).results("dev").read_text("utf-8"))
        if sweep.metric not in scores:
            raise ValueError(f"metric {sweep.metric}: {folder} has only the scores {', '.join(scores)}")
        return float(scores[sweep.metric])
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
    if status == _USAGE_ERROR:
        raise ValueError(f"{log}: {' '.join(last)}")
    logger.warning("%s failed with status %d: %s; see %s", folder.name, status, " ".join(last), log)
    return None


def _suggested(trial: "optuna.Trial", name: str, space: Any) -> Any:
    if isinstance(space, list):
        return trial.suggest_categorical(name, space)
    low, high, step, log = space["from"], space["to"], space.get("step"), bool(space.get("log"))
    if isinstance(low, int) and isinstance(high, int) and isinstance(step or 1, int):
        return trial.suggest_int(name, low, high, step=step or 1, log=log)
    return trial.suggest_float(name, low, high, step=step, log=log)


def _table(sweep: Sweep, study: "optuna.Study") -> Sheet:
    """Complete trials, the best first."""
    done = [(trial.value, trial) for trial in study.trials if trial.value is not None]
    done.sort(key=lambda one: one[0] if sweep.minimises else -one[0])
    rows = []
    for score, trial in done:
        seconds = trial.duration.total_seconds() if trial.duration else 0
        parameters = [_shown(trial.params.get(name, "")) for name in sweep.search]
        rows.append([trial.user_attrs["folder"], *parameters, f"{score:.4f}", f"{seconds:.0f}"])
    return Sheet("Trials", 1 + len(sweep.search), ["trial", *sweep.search, sweep.metric, "seconds"], rows)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write_results(sweep: Sweep, study: "optuna.Study") -> None:
    """Write the table, with the command of the best trial, and the plot of the score against each flag."""
    best = study.best_trial
    flags = {**sweep.flags, **best.params}
    words = (word for name, value in flags.items() for word in (f"--{name}", str(value)))
    command = shlex.join(["python", sweep.script, *words, "--do_train", "--do_eval"])
    with atomic_write(sweep.output_dir / "trials.md") as fresh:
        fresh.write_text(f"{as_markdown(_table(sweep, study))}\n\nBest: `{command}`\n", "utf-8")
    from matplotlib import use

    use("Agg")
    from optuna.visualization.matplotlib import plot_slice

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is marked as experimental, and complains of a single trial
        axes = plot_slice(study, target_name=sweep.metric)
    figure: Any = axes.flat[0].figure if isinstance(axes, np.ndarray) else axes.figure
    with atomic_write(sweep.output_dir / "trials.png") as fresh:
        figure.savefig(fresh, dpi=120, bbox_inches="tight", format="png")
    figure.clear()


if __name__ == "__main__":
    run_script(main)
