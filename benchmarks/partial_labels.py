"""What training from partial labels reaches, compared to full labels and to taking what is not annotated as O.

python -m benchmarks.partial_labels --task_name conll2003 --data_dir DATA --model_name_or_path ENCODER --output_dir OUT

Takes the flags of the training scripts. The annotation of the train split is made incomplete; dev and test stay as they
are. An interrupted measurement continues where it was; with other seeds or experiments, it adds to what is there.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.compare_runs import (
    SCORES,
    Difference,
    Sheet,
    Variant,
    as_markdown,
    compare,
    difference_sheet,
    load_variants,
)
from analysis.documents import read_documents
from common.entities import Entity
from common.options import option
from common.run_files import RunFolder
from models import BertCrfForNer
from processors.corpus import Corpus
from processors.examples import Example
from processors.text.gazetteer import Gazetteer, make_gazetteer
from tools.command_line import chosen_head, parse_flags
from tools.folds import settings_of_splits, trained_model
from tools.label_texts import label_texts
from tools.recipe import open_trained, predict_run
from tools.run import corpus_of
from tools.run_folder import unlock_run_folder, write_json
from tools.script import run_script
from tools.settings import Settings, require

REFERENCE = "full"
_RESAMPLES = 10_000
_CERTAIN = 0.5  # share of the matches of a surface that are entities; two types may both have it
EXPERIMENTS = ["halves", "missing", "dictionary"]


@dataclass(frozen=True)
class PartialLabelOptions:
    """Flags of the benchmark."""

    experiments: str = option(
        ",".join(EXPERIMENTS), "experiments, or single conditions of them", common=True, nargs="+"
    )
    seeds: str = option("1,2", "seeds of the training", common=True, nargs="+")
    train_share: float = option(1.0, "share of the training documents to use", common=True, above=0, at_most=1)
    data_seed: int = option(0, "seed of what is drawn of the data, for all conditions", common=True, at_least=0)
    half_types: str = option(
        "", "types annotated in one half of the documents; default: every other, by frequency", common=True, nargs="+"
    )
    missing: float = option(0.5, "share of the entities that are not annotated", common=True, above=0, below=1)
    labelled: float = option(0.1, "dictionary: share of annotated sentences", common=True, above=0, below=1)
    repeated: int = option(5, "self_training: how often the annotated sentences are seen in an epoch", at_least=1)
    certainty: float = option(0.95, "self_training: least probability of a label", above=0.5, below=1)
    same_steps: bool = option(True, "as many steps on few texts as on all, without max_steps", common=True)


class Source(NamedTuple):
    """Texts with all entities, the entity types, and how training data are made of them."""

    examples: Sequence[Example]
    types: Sequence[str]
    options: PartialLabelOptions

    def generator(self, purpose: str) -> random.Random:
        """Independent of the other draws, so that conditions share them."""
        return random.Random(f"{purpose} {self.options.data_seed}")

    def in_documents(self, share: float, purpose: str) -> list[bool]:
        """For each text whether its document is among a random share of the documents."""
        names = [example.document or f"text {place}" for place, example in enumerate(self.examples)]
        documents = list(dict.fromkeys(names))
        drawn = set(self.generator(purpose).sample(documents, max(1, round(share * len(documents)))))
        return [name in drawn for name in names]

    def few(self) -> set[int]:
        """Places of the texts that stay annotated if few do."""
        number = max(1, round(self.options.labelled * len(self.examples)))
        return set(self.generator("labelled").sample(range(len(self.examples)), number))


def halves(source: Source, known: bool) -> list[Example]:
    """Half of the documents with some types, and the others with the other types.

    Args:
        known: whether each text tells which types are annotated.

    Raises:
        ValueError: one of the halves has no type, or a type is unknown.
    """
    counts = Counter(entity.type for example in source.examples for entity in example.entities or ())
    by_frequency = sorted(source.types, key=lambda name: -counts[name])
    first = set(filter(None, source.options.half_types.split(","))) or set(by_frequency[::2])
    if not first < set(source.types):
        raise ValueError(f"--half_types {','.join(sorted(first))}: expected some of {', '.join(source.types)}, not all")
    texts = []
    for example, is_first in zip(source.examples, source.in_documents(0.5, "halves"), strict=True):
        types = first if is_first else set(source.types) - first
        entities = [entity for entity in example.entities or () if entity.type in types]
        texts.append(replace(example, entities=entities, complete=frozenset(types) if known else None))
    return texts


def without_some_entities(source: Source) -> list[Example]:
    """All texts, without a random share of the entities."""
    places = [(text, entity) for text, one in enumerate(source.examples) for entity in one.entities or ()]
    lost = set(source.generator("missing").sample(places, round(source.options.missing * len(places))))
    return [
        replace(one, entities=[entity for entity in one.entities or () if (text, entity) not in lost])
        for text, one in enumerate(source.examples)
    ]


def with_dictionary(source: Source, few: bool = True, rest: bool = True, known: bool = False) -> list[Example]:
    """A random share of the texts with all entities, and the rest with those that a dictionary made from them finds.

    Args:
        few, rest: which texts are wanted.
        known: whether the texts tell that the first ones are complete for all types, and the rest for none.
    """
    drawn = source.few()
    dictionary = dictionary_of([source.examples[place] for place in sorted(drawn)])
    texts = []
    for place, example in enumerate(source.examples):
        if place in drawn and few:
            texts.append(replace(example, complete=frozenset(source.types) if known else None))
        elif place not in drawn and rest:
            found = dictionary.matches(example.words)
            entities = [Entity(min(types), first, last) for first, last, types in found]
            texts.append(replace(example, entities=entities, complete=frozenset() if known else None))
    return texts


def dictionary_of(examples: Sequence[Example]) -> Gazetteer:
    """The surfaces that are entities of one type in at least half of their matches."""
    gazetteer = Gazetteer()
    for surface, name, share in make_gazetteer(examples):
        if share >= _CERTAIN:
            gazetteer.add(surface, [name])
    return gazetteer


def few_and_unlabelled(source: Source) -> list[Example]:
    """A random share of the texts with all entities, several times, and the rest without labels."""
    drawn = source.few()
    few = [source.examples[place] for place in sorted(drawn)]
    rest = [replace(one, entities=None) for place, one in enumerate(source.examples) if place not in drawn]
    return few * source.options.repeated + rest


class Condition(NamedTuple):
    """The experiment that it belongs to, the texts to train on, and the settings that it needs.

    Args:
        teacher: condition whose model labels the texts that have no labels.
    """

    experiment: str
    texts: Callable[[Source], list[Example]]
    settings: Mapping[str, Any] = {}
    teacher: str = ""


_MISSING = {"missing_entities": True}
CONDITIONS = {
    REFERENCE: Condition("", lambda source: list(source.examples)),
    "halves_as_outside": Condition("halves", lambda source: halves(source, known=False)),
    "halves_known": Condition("halves", lambda source: halves(source, known=True)),
    "missing_as_outside": Condition("missing", without_some_entities),
    "missing_known": Condition("missing", without_some_entities, _MISSING),
    "few": Condition("dictionary", lambda source: with_dictionary(source, rest=False)),
    "dictionary_only": Condition("dictionary", lambda source: with_dictionary(source, few=False)),
    "both_as_outside": Condition("dictionary", with_dictionary),
    "both_known": Condition("dictionary", lambda source: with_dictionary(source, known=True), _MISSING),
    "self_training": Condition("dictionary", few_and_unlabelled, teacher="few"),
}


def chosen_conditions(names: str) -> dict[str, Condition]:
    """The reference and the conditions that are named, or whose experiments are.

    Raises:
        ValueError: a name is unknown.
    """
    wanted, known = {REFERENCE, *filter(None, names.split(","))}, dict.fromkeys([*EXPERIMENTS, *CONDITIONS])
    if unknown := sorted(wanted - known.keys()):
        raise ValueError(f"--experiments {', '.join(unknown)}: expected some of {', '.join(known)}")
    wanted |= {one.teacher for name, one in CONDITIONS.items() if {name, one.experiment} & wanted}
    return {name: one for name, one in CONDITIONS.items() if {name, one.experiment} & wanted}


def labelled_by(teacher: Path, texts: Sequence[Example], certainty: float, no_cuda: bool) -> list[Example]:
    """The texts, with labels where they have none and the model of a run is certain."""
    run, model, tokenizer = open_trained(teacher, no_cuda=no_cuda)
    unlabelled = [one for one in texts if one.entities is None]
    labelled = label_texts(run, model, tokenizer, unlabelled, certainty)
    return [next(labelled) if one.entities is None else one for one in texts]


def with_steps_of(of_all: int, texts: int, settings: Settings) -> Settings:
    """The settings for as many steps, and evaluations on dev, on some texts as on all."""
    optimisation, logging = settings.optimisation, settings.logging
    if texts == of_all or optimisation.max_steps > 0:
        return settings
    if logging.logging_steps == -1:
        batch = optimisation.per_gpu_train_batch_size * optimisation.gradient_accumulation_steps
        settings = settings.replace(logging_steps=math.ceil(of_all / batch))
    return settings.replace(num_train_epochs=optimisation.num_train_epochs * of_all / texts)


def described(examples: Iterable[Example]) -> dict[str, Any]:
    """Numbers of texts and words, and of entities and their words by type."""
    total, entities, words = Counter(texts=0, words=0), Counter[str](), Counter[str]()
    for example in examples:
        total.update(texts=1, words=len(example.words))
        for one in example.entities or ():
            entities[one.type] += 1
            words[one.type] += one.words
    return {**total, "entities": dict(sorted(entities.items())), "entity_words": dict(sorted(words.items()))}


def by_document(folders: Sequence[Path], documents: Mapping[str, str]) -> Variant:
    """Scores of the runs of a condition, with the counts of documents instead of those of their texts.

    Args:
        documents: the document of each text of test.
    """
    (variant,) = load_variants(folders, "test")
    texts = [one.guid for one in read_documents(RunFolder(folders[0]).documents("test"))]
    names, places = np.unique([documents[text] for text in texts], return_inverse=True)
    counts = np.zeros((len(names), len(folders), 3), np.int64)
    np.add.at(counts, places, variant.counts.swapaxes(0, 1))
    return Variant(variant.name, counts.swapaxes(0, 1))


def report(home: Path, variants: Sequence[Variant], data: Mapping[str, Any], title: str) -> str:
    """Write ``results.json`` and ``table.md``, and return the latter: all conditions, and each experiment's in pairs.

    Args:
        data: what each condition was trained on.
    """
    against = compare(variants, "f1", _RESAMPLES, 0, REFERENCE)
    cells = {first: numbers for first, _, *numbers in difference_sheet(against).rows}
    results, rows, pairs = {}, [], list[Difference]()
    for one in variants:
        of_data, scores = data[one.name], {score: 100 * one.scores(score) for score in SCORES}
        results[one.name] = {**of_data, **{score: values.tolist() for score, values in scores.items()}}
        means = [f"{scores[score].mean():.2f}" for score in ("f1", "precision", "recall")]
        seeds = ", ".join(f"{value:.2f}" for value in scores["f1"])
        counts = [f"{count:,}" for count in (of_data["texts"], sum(of_data["entities"].values()), of_data["steps"])]
        rows.append([one.name, *counts, *means, seeds, *cells.get(one.name, [""] * 4)])
    for experiment in EXPERIMENTS:
        own = [one for one in variants if CONDITIONS[one.name].experiment == experiment]
        pairs += compare(own, "f1", _RESAMPLES, 0)
    columns = ["trained on", "texts", "entities", "steps", "F1", "precision", "recall", "F1 of each seed"]
    columns += [f"F1 - {REFERENCE}", "95 % interval", "p", "p (Holm)"]
    sheets = [Sheet("", 1, columns, rows), *([difference_sheet(pairs)] if pairs else [])]
    write_json(home / "results.json", {"conditions": results, "differences": list(map(asdict, against + pairs))})
    text = "\n\n".join([title, *map(as_markdown, sheets)])
    (home / "table.md").write_text(f"{text}\n", "utf-8")
    return text


def keep_options(path: Path, options: PartialLabelOptions) -> None:
    """Keep how the data were made.

    Raises:
        ValueError: the folder has runs on other data.
    """
    made = {name: value for name, value in asdict(options).items() if name not in ("experiments", "seeds")}
    former = json.loads(path.read_text("utf-8")) if path.is_file() else made
    if changed := [f"--{name} {value!r}" for name, value in former.items() if value != made[name]]:
        raise ValueError(f"{path.parent} has runs with {', '.join(changed)}; choose another --output_dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, made)


def main() -> None:
    head = chosen_head(BertCrfForNer)
    description = (__doc__ or "").partition("\n")[0]
    settings, (options,) = parse_flags(Settings(head=head.Options()), description, more=[PartialLabelOptions])
    require(settings, "task_name", "output_dir", "model_name_or_path")
    conditions, seeds = chosen_conditions(options.experiments), [int(seed) for seed in options.seeds.split(",")]
    home, corpus = Path(settings.actions.output_dir), corpus_of(settings.data)
    examples = [one for one in corpus.examples("train") if one.words and one.entities is not None]
    if any(one.annotation.is_partial for one in examples):
        raise ValueError("the train split is annotated in part; the reference needs all entities")
    source = Source(examples, corpus.entity_types(), options)
    source = source._replace(examples=list(compress(examples, source.in_documents(options.train_share, "train"))))
    prepared, data = {name: one.texts(source) for name, one in conditions.items()}, dict[str, dict[str, Any]]()
    keep_options(home / "options.json", options)
    for seed in seeds:
        for name, condition in conditions.items():
            folder, of_data, texts = home / name / f"seed_{seed}", home / "data" / name, prepared[name]
            if condition.teacher:
                of_data = of_data / f"seed_{seed}"
                if RunFolder(folder).config.is_file():
                    texts = list(Corpus("", split_files={"train": of_data / "train.jsonl"}).examples("train"))
                else:
                    teacher, no_cuda = home / condition.teacher / f"seed_{seed}", settings.machine.no_cuda
                    texts = labelled_by(teacher, texts, options.certainty, no_cuda)
            data[name] = described(texts)
            print(f"{name}, seed {seed}: {json.dumps(data[name])}")
            if RunFolder(folder).documents("test").is_file():
                continue
            splits = {"train": texts} | {one: corpus.examples(one) for one in ("dev", "test") if corpus.has(one)}
            own = settings_of_splits(of_data, splits, source.types, settings).replace(**condition.settings)
            own = with_steps_of(len(source.examples), len(texts), own) if options.same_steps else own
            predict_run(*trained_model(own.replace(output_dir=str(folder), seed=seed), head, "do_predict"))
            unlock_run_folder()
    documents = {one.guid: one.document or one.guid for one in corpus.examples("test")}
    variants = [by_document([home / name / f"seed_{seed}" for seed in seeds], documents) for name in conditions]
    for name in conditions:
        results = RunFolder(home / name / f"seed_{seeds[0]}").train_results
        data[name]["steps"] = json.loads(results.read_text("utf-8"))["steps"]
    title = f"Test, seeds {options.seeds}; intervals and p over {len(set(documents.values())):,} documents"
    steps = "; as many steps on few texts as on all" if options.same_steps else ""
    print(report(home, variants, data, f"{title}{steps}:"))


if __name__ == "__main__":
    run_script(main)
