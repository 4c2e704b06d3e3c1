"""How many words must be annotated for a given share of the F1 of all, if a model chooses the texts, or chance.

python -m benchmarks.active_learning --task_name conll2003 --data_dir DATA --model_name_or_path ENCODER --output_dir OUT

Takes the flags of the training scripts; give ``--max_steps``, so that few texts are learned as long as many. The train
split plays the texts without annotation, dev is scored. An interrupted simulation continues where it was.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.options import option
from common.run_files import RunFolder
from models import BertCrfForNer
from models.tagger import Tagger
from processors.corpus import Corpus
from processors.examples import Example
from tools.command_line import chosen_head, parse_flags
from tools.folds import settings_of_splits, trained_model
from tools.recipe import evaluate_run
from tools.run import corpus_of
from tools.run_folder import unlock_run_folder, write_json
from tools.script import run_script
from tools.select_texts import SCORES, Scored, choose, score_texts
from tools.settings import Settings, require

STRATEGIES = ("random", *SCORES)


@dataclass(frozen=True)
class SimulationOptions:
    """Flags of the simulation."""

    strategies: str = option("random,entropy,path,expected_errors", "how texts are chosen", common=True, nargs="+")
    seeds: str = option("1,2,3", "seeds of the first texts and of the training", common=True, nargs="+")
    shares: str = option(
        "0.02,0.04,0.06,0.08,0.1,0.14,0.18,0.24,0.32,0.45,0.6",
        "shares of the words that are annotated after each round",
        common=True,
        nargs="+",
    )
    target: float = option(0.95, "share of the F1 of all texts to reach", common=True, above=0, at_most=1)
    most_similar: float = option(0.5, "as in tools.select_texts; 1: no two equal texts", above=0, at_most=1)


class Round(NamedTuple):
    """Sentences and words that were annotated, and the F1 of dev."""

    sentences: int
    words: int
    f1: float


@dataclass(frozen=True)
class Simulation:
    """Learning from a growing part of a corpus.

    Args:
        settings: of each training, but for its data, seed and folder; ``output_dir`` holds all.
        options: how it is done.
        head: class of the tagger.
        corpus: where the texts are from.
        examples: texts of the train split.
    """

    settings: Settings
    options: SimulationOptions
    head: type[Tagger]
    corpus: Corpus
    examples: Sequence[Example]

    def rounds(self, strategy: str, seed: int) -> Iterator[Round]:
        """Annotate more and more texts, and learn from them."""
        home = Path(self.settings.actions.output_dir) / f"seed_{seed}"
        total = sum(len(example.words) for example in self.examples)
        texts = self._random(seed, total * self._shares[0], [])
        folder = home / "start"  # the same for all strategies
        for number, share in enumerate((*self._shares[1:], None), start=1):
            yield self._learn(folder, texts, seed)
            if share is None:
                return
            kept = home / strategy / f"texts_{number}.json"
            if not kept.is_file():
                chosen = self._chosen(strategy, folder, texts, seed, total * share)
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(kept, chosen)
            texts, folder = json.loads(kept.read_text("utf-8")), home / strategy / f"round_{number}"

    def of_all(self, seed: int) -> Round:
        """Learn from all texts."""
        folder = Path(self.settings.actions.output_dir) / f"seed_{seed}" / "all"
        return self._learn(folder, list(range(len(self.examples))), seed)

    @property
    def _shares(self) -> list[float]:
        return sorted(map(float, self.options.shares.split(",")))

    def _random(self, seed: int, words: float, texts: Sequence[int]) -> list[int]:
        """Texts and further ones, in a random order that the seed alone determines, until there are enough words."""
        order = random.Random(seed).sample(range(len(self.examples)), len(self.examples))
        found, missing = list(texts), words - sum(len(self.examples[text].words) for text in texts)
        for text in order:
            if missing <= 0:
                break
            if text not in texts:
                found.append(text)
                missing -= len(self.examples[text].words)
        return found

    def _chosen(self, strategy: str, folder: Path, texts: list[int], seed: int, words: float) -> list[int]:
        """Texts and those that a strategy adds, until there are enough words."""
        if strategy == "random":
            return self._random(seed, words, texts)
        known = set(texts)
        missing = words - sum(len(self.examples[text].words) for text in texts)
        others = [text for text in range(len(self.examples)) if text not in known]
        raw = [Example(str(text), one.words, None, one.text, one.offsets) for text, one in self._pairs(others)]
        run, model, tokenizer = trained_model(self._settings(folder, texts, seed), self.head, "do_eval")
        scored = list(score_texts(run, model, tokenizer, raw, strategy))

        def enough(found: Sequence[Scored]) -> bool:
            return sum(len(one.example.words) for one in found) >= missing

        added, _ = choose(scored, enough, self.options.most_similar, [self.examples[text] for text in texts])
        unlock_run_folder()
        return [*texts, *(int(one.example.guid) for one in added)]

    def _pairs(self, texts: Sequence[int]) -> Iterator[tuple[int, Example]]:
        return ((text, self.examples[text]) for text in texts)

    def _settings(self, folder: Path, texts: Sequence[int], seed: int) -> Settings:
        splits = {"train": [one for _, one in self._pairs(sorted(texts))], "dev": self.corpus.examples("dev")}
        settings = settings_of_splits(folder / "data", splits, self.corpus.entity_types(), self.settings)
        return settings.replace(output_dir=str(folder / "run"), seed=seed)

    def _learn(self, folder: Path, texts: Sequence[int], seed: int) -> Round:
        results = RunFolder(folder / "run").results("dev")
        if not results.is_file():
            evaluate_run(*trained_model(self._settings(folder, texts, seed), self.head, "do_eval"))
            unlock_run_folder()
        f1 = json.loads(results.read_text("utf-8"))["f1"]
        return Round(len(texts), sum(len(self.examples[text].words) for text in texts), f1)


def needed(rounds: Sequence[Round], f1: float) -> tuple[float, float] | None:
    """Sentences and words at which an F1 is reached first, between two rounds by interpolation; ``None`` if never."""
    for place, after in enumerate(rounds):
        if after.f1 >= f1:
            if not place:
                return after.sentences, after.words
            before = rounds[place - 1]
            part = (f1 - before.f1) / (after.f1 - before.f1)
            return (
                before.sentences + part * (after.sentences - before.sentences),
                before.words + part * (after.words - before.words),
            )
    return None


def simulate(simulation: Simulation) -> str:
    """Run what is missing, stopping each strategy where it has reached the target, and return the table."""
    options, lines = simulation.options, []
    seeds = [int(seed) for seed in options.seeds.split(",")]
    of_all = {seed: simulation.of_all(seed) for seed in seeds}
    words_of_random = 0.0
    for strategy in options.strategies.split(","):
        found = []
        for seed in seeds:
            rounds, wanted = list[Round](), options.target * of_all[seed].f1
            for one in simulation.rounds(strategy, seed):
                rounds.append(one)
                if one.f1 >= wanted:
                    break
            found.append(needed(rounds, wanted))
        reached = [one for one in found if one is not None]
        if len(reached) < len(seeds):
            lines.append(f"| {strategy} | not reached by {len(seeds) - len(reached)} of {len(seeds)} seeds | | |")
            continue
        sentences, words = np.mean(reached, axis=0)
        spread = f"{min(one[1] for one in reached):,.0f} to {max(one[1] for one in reached):,.0f}"
        words_of_random = float(words) if strategy == "random" else words_of_random
        ratio = f"{words / words_of_random:.0%}" if words_of_random else "-"
        lines.append(f"| {strategy} | {sentences:,.0f} | {words:,.0f} ({spread}) | {ratio} |")
    f1 = float(np.mean([one.f1 for one in of_all.values()]))
    every = of_all[seeds[0]]
    title = f"{options.target:.0%} of the F1 of all {every.sentences:,} sentences and {every.words:,} words ({f1:.2%})"
    head = ["| chosen by | sentences | words, mean (range) | words, compared to random |", "|---|---|---|---|"]
    return "\n".join([f"{title}, {len(seeds)} seeds:", "", *head, *lines])


def main() -> None:
    head = chosen_head(BertCrfForNer)
    description = (__doc__ or "").partition("\n")[0]
    settings, (options,) = parse_flags(Settings(head=head.Options()), description, more=[SimulationOptions])
    require(settings, "task_name", "output_dir", "model_name_or_path")
    if unknown := set(options.strategies.split(",")) - set(STRATEGIES):
        raise ValueError(f"--strategies {', '.join(sorted(unknown))}: expected some of {', '.join(STRATEGIES)}")
    corpus = corpus_of(settings.data)
    examples = [one for one in corpus.examples("train") if one.words and one.entities is not None]
    table = simulate(Simulation(settings, options, head, corpus, examples))
    (Path(settings.actions.output_dir) / "active_learning.md").write_text(f"{table}\n", "utf-8")
    print(table)


if __name__ == "__main__":
    run_script(main)
