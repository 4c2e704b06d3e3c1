"""What users import, type and read: every name is listed here, and a change of one is a visible change of a list."""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import predict_ner
from common.command_line import CommandLine
from inference.predictor import NerPredictor
from inference.service import ServiceLimits, create_service
from tests.lightning_runs.lightning_runs import call_lightning, ner_options
from tests.tools.runs import FinishedRun, read_json

# Where what is listed may be called, its parameters follow, with = where there is a default.
NER_SCRIPT = """
    evaluate(run, model, tokenizer, prefix=) load_and_cache_examples(run, task, tokenizer, data_type=) main()
    predict(run, model, tokenizer, prefix=) train(run, train_dataset, model, tokenizer)
"""
IMPORTS = {
    "run_ner_crf": NER_SCRIPT,
    "run_ner_softmax": NER_SCRIPT,
    "run_ner_span": NER_SCRIPT,
    "run_pl_ner": "NERTransformer(run, model, tokenizer) main()",
    "run_pl_glue": "GLUETransformer(run, model, tokenizer, corpus) main()",
    "predict_ner": "main()",
    "serve_ner": "main()",
    "bert_ner": """
        BertNERModel(encoder, labels) evaluate(model, examples, batch_size) main() train(model, train_set, dev_set,
        args)
    """,
    "models": """
        BertCrfForNer(config) BertCrfPerTypeForNer(config) BertSoftmaxForNer(config) BertSpanForNer(config) HEADS
        head_named(name)
    """,
    "models.crf": """
        CRF(num_tags, batch_first=, legal=) Paths(tags, scores) ProbableSpans(rows, types, firsts, lasts, probabilities)
        SpanTags(only, first, middle, last, before, after_only, after_last) legal_transitions(tags)
    """,
    "processors": """
        DataError(message, path=, line=) Example(guid, words, entities=, text=, offsets=, line=, word_lines=,
        unannotated=, confidences=, words_given=, document=) convert_examples_to_features(examples, label_list,
        max_seq_length, tokenizer, cls_token_at_end=, cls_token=, cls_token_segment_id=, sep_token=, pad_on_left=,
        pad_token=, pad_token_segment_id=, sequence_a_segment_id=, casing_segment_ids=, markup=, window_overlap=)
    """,
    "callbacks": """
        Backward(*args, **kwargs) Callback() Callbacks(callbacks) Checkpoints(run, save_model, save_checkpoint,
        every, keep, remove, metric=) EarlyStopping(patience, metric=) ExponentialAverage(decay)
        FastGradientMethod(name=, epsilon=) Forward(*args, **kwargs) MLflow(name, hyper_parameters) Progress()
        ProjectedGradientDescent(name, epsilon, alpha, steps) RDrop(alpha) ScoredText(text, gold, predicted)
        StochasticWeightAverage(start) TensorBoard(log_dir, hyper_parameters) TrainState(model, optimizer,
        total_steps, steps_per_epoch, is_main=, tag_names=, step=, loss=, gradient_norm=, words_per_second=,
        tokens_per_second=, padding_share=, utilisation=, memory_gib=, skipped_steps=, metrics=, type_metrics=,
        examples=, best_metrics=, evaluated_step=, should_stop=) WandB(name, hyper_parameters) Watchdog()
    """,
    "inference.predictor": """
        FoundEntity(type, start, end, surface, confidence) NerPredictor(model, tokenizer, markup, cutter,
        max_seq_length=, window_overlap=, batch_tokens=, context_size=)
    """,
    "inference.export_onnx": "export(folder, path, head=) main()",
    "inference.hub_model": """
        BertCrfForNer(config) BertSoftmaxForNer(config) Entity(type, first_word, last_word) TaggedText(tags, entities)
        entities_of(tags)
    """,
    "analysis.compare_runs": "main(argv=)",
    "analysis.report.__main__": "main()",
    "tools.convert_corpus": "main()",
    "tools.find_label_errors": "find_label_errors(settings, options, head) main()",
    "tools.new_encoder": "main()",
    "tools.publish": "main() upload(copy, repo_id, private, api) write_copy(folder, copy, repo_id, license=)",
    "tools.select_texts": "main()",
    "tools.sweep": "Sweep(output_dir, search, flags=, script=, metric=, trials=, seed=) main() run_sweep(sweep)",
    "models.tagger": "Tagger(config)",
}
METHODS = {
    "models.tagger.Tagger": """
        Options add_token_types(count) candidates(emissions, word_mask, threshold) confidence_temperatures config_class
        configure(config, labels, options) emissions(states, word_mask)
        encode(annotations) expressible(entities) forward(input_ids, attention_mask=, token_type_ids=,
        word_positions=, word_mask=, labels=, num_items_in_batch=, word_lengths=) from_pretrained(name_or_path, *args,
        **kwargs) head_weight label_names learning_rates(options) log_probabilities(emissions) losses(emissions,
        targets, word_mask) markup missing_labels nests num_scores(config) override(config, options) predict(emissions,
        word_mask, with_confidence=) read_labels(names) reset_head() script select_labels(ids, names) title types
        unexportable training_emissions(states, word_mask, targets) uncertainty(emissions, word_mask)
        warm_up(emissions, word_mask)
    """,
    "models.BertCrfForNer": """
        decode(emissions, word_mask) distillation_loss(emissions, word_mask, taught, temperature=)
        entity_confidences(emissions, word_mask, entities) expectations(emissions, word_mask, temperature=)
        calibrated(emissions) lattice() outside_confidences(emissions, word_mask, spans) tag_names
    """,
    "models.BertSoftmaxForNer": """
        decode(emissions, word_mask) distillation_loss(emissions, word_mask, taught, temperature=)
        entity_confidences(emissions, word_mask, entities) expectations(emissions, word_mask, temperature=)
        calibrated(emissions) lattice() outside_confidences(emissions, word_mask, spans) tag_names
        token_losses(logits, labels, weights=)
    """,
    "models.crf.CRF": """
        best_paths(emissions, mask=, nbest=, allowed=) decode(emissions, mask=, nbest=, allowed=) entropy(emissions,
        mask=, allowed=, differentiable=) forward(emissions, tags=, mask=, reduction=, allowed=, weight=)
        log_partition(emissions, mask=, allowed=) marginals(emissions, mask=, pairwise=, allowed=, differentiable=)
        probable_spans(emissions, mask, tags, threshold) sample(emissions, mask=, n=, generator=, allowed=)
        set_legal(legal) span_confidence(emissions, mask, spans,
        inside, before=, after=)
    """,
    "inference.predictor.NerPredictor": """
        __call__(texts) load(folder, device=, dtype=, batch_tokens=, word_unit=, head=) stream(texts, look_ahead=)
        has_context tag_words(texts, documents=) warm_up()
    """,
    "inference.hub_model.BertCrfForNer": """
        decode(logits, word_mask=) depends_on_words forward(input_ids, attention_mask=, token_type_ids=,
        word_positions=, word_mask=, word_lengths=) tag_words(texts, tokenizer, batch_size=)
    """,
    "callbacks.Callback": """
        after_evaluate(state) around_backward(state, backward) around_forward(state, forward, batch)
        before_evaluate(state) close() load_state_dict(saved) on_evaluate(state) on_log(state) on_step(state)
        on_train_begin(state) on_train_end(state) state_dict()
    """,
}

# Flags without their dashes, and arguments. Each flag with an underscore of a training script may have a dash there.
TRAINING_FLAGS = """
    adam_epsilon adv_alpha adv_epsilon adv_name adv_steps adv_type averaging bf16 bilstm_learning_rate bilstm_size
    cache_dir callback casing class_weights config_file config_name context_dropout context_size crf_constraints
    crf_learning_rate data_dir dataset_name ddp_timeout dev_file distill_temperature distill_weight do_adv do_eval
    do_lower_case do_predict do_train document_context early_stopping_patience ema_decay eval_all_checkpoints
    eval_max_seq_length evaluate_during_training feature_cache_dir fp16 fp16_backend fp16_opt_level
    freeze_embeddings freeze_layers from_scratch gradient_accumulation_steps gradient_checkpointing head
    head_learning_rate help_all labels last_layers layer_decay learning_rate local_rank log_loss_steps logging_steps
    longest_span loss loss_type lr_scheduler_kwargs lr_scheduler_type markup max_batch_tokens max_grad_norm
    max_nonfinite_steps max_steps metric_for_best_model model_name_or_path model_type no_crf_constraints no_cuda
    no_evaluate_during_training no_soft_label num_train_epochs num_workers offset_unit optim output_dir
    overwrite_cache overwrite_output_dir per_gpu_eval_batch_size per_gpu_train_batch_size predict_checkpoints
    rdrop_alpha report_to resume_from_checkpoint save_steps save_total_limit seed shard_optimizer soft_label
    span_edges span_learning_rate span_size swa_start tag_column task_name teacher test_file tf32 tokenizer_name
    torch_compile torch_compile_backend train_file train_max_seq_length unlabelled_file warmup_proportion
    warmup_steps weight_decay window_overlap word_column word_dropout word_pooling word_unit
"""
FLAGS = {
    "run_ner_crf": "",
    "run_ner_softmax": "",
    "run_ner_span": "",
    "run_pl_ner": """
        accumulate_grad_batches adafactor attention_dropout devices dropout eval_batch_size gpus gradient_clip_val
        log_every_n_steps lr_scheduler max_epochs max_seq_length num_nodes task_type train_batch_size
    """,
    "run_pl_glue": """
        accumulate_grad_batches adafactor attention_dropout devices dropout eval_batch_size gpus gradient_clip_val
        log_every_n_steps lr_scheduler max_epochs max_seq_length num_nodes task train_batch_size
    """,
    "predict_ner": """
        batch_tokens device dtype files format head model output replace_bad_utf8 text unit word_unit
    """,
    "serve_ner": """
        batch_timeout device dtype head host max_batch_size max_characters max_requests max_texts model port
        read_timeout timeout workers
    """,
    "analysis.compare_runs": "baseline latex markdown plot resamples runs score seed split",
    "analysis.report.__main__": "head output run",
    "tools.find_label_errors": f"{TRAINING_FLAGS} folds min_suspicion tasks",
    "tools.select_texts": "by files head leave_out most_similar no_cuda number output run to",
    "tools.sweep": "sweep",
    "tools.new_encoder": "cased encoder keep_layers layers max_positions output_dir vocab width",
    "tools.convert_corpus": """
        offset_unit source span_edges tag_column target to word_column word_unit
    """,
    "inference.export_onnx": "head model output",
    "tools.publish": "dry_run license model private repo_id",
}

# EVENTS is a file of TensorBoard.
RUN_FILES = """
    .run.lock .run.lock.holder checkpoint-STEP/config.json checkpoint-STEP/eval_documents.jsonl
    checkpoint-STEP/eval_results.json checkpoint-STEP/eval_results.txt checkpoint-STEP/model.safetensors
    checkpoint-STEP/test_documents.jsonl checkpoint-STEP/test_predictions.jsonl
    checkpoint-STEP/test_results.json checkpoint-STEP/test_results.txt checkpoint-STEP/tokenizer.json
    checkpoint-STEP/tokenizer_config.json checkpoint-STEP/training_args.json checkpoint-STEP/training_state.pt
    checkpoint-best/config.json checkpoint-best/eval_documents.jsonl checkpoint-best/eval_results.json
    checkpoint-best/eval_results.txt checkpoint-best/model.safetensors checkpoint-best/test_documents.jsonl
    checkpoint-best/test_predictions.jsonl checkpoint-best/test_results.json checkpoint-best/test_results.txt
    checkpoint-best/tokenizer.json checkpoint-best/tokenizer_config.json checkpoint-best/training_args.json
    config.json environment.json eval_documents.jsonl eval_results.json eval_results.txt model.safetensors
    run.log tensorboard/EVENTS test_documents.jsonl test_predictions.jsonl test_results.json test_results.txt
    tokenizer.json tokenizer_config.json train_results.json training_args.json
"""
LIGHTNING_FILES = """
    .run.lock .run.lock.holder checkpoint-best/config.json checkpoint-best/model.safetensors
    checkpoint-best/tokenizer.json checkpoint-best/tokenizer_config.json checkpoint-best/training_args.json
    config.json environment.json eval_documents.jsonl eval_results.json eval_results.txt last.ckpt
    model.safetensors run.log tensorboard/EVENTS test_documents.jsonl test_predictions.jsonl
    test_predictions.txt test_results.json test_results.txt tokenizer.json tokenizer_config.json
    train_results.json training_args.json
"""

# A dot leads to what a key holds. What is below OPEN_KEYS depends on the data.
OPEN_KEYS = {"types", "lengths", "packages", "id2label", "label2id"}
SCORES = """
    accuracy confusion confusion.matrix confusion.missed confusion.spurious confusion.types documents errors
    errors.boundary errors.missed errors.right errors.spurious errors.type errors.type_and_boundary f1 intervals
    intervals.f1 intervals.precision intervals.recall lengths loss novelty novelty.seen_in_train
    novelty.seen_in_train.f1 novelty.seen_in_train.precision novelty.seen_in_train.recall
    novelty.seen_in_train.support novelty.unseen novelty.unseen.f1 novelty.unseen.precision
    novelty.unseen.recall novelty.unseen.support precision recall schemes schemes.exact schemes.exact.correct
    schemes.exact.f1 schemes.exact.incorrect schemes.exact.missed schemes.exact.partial schemes.exact.precision
    schemes.exact.recall schemes.exact.spurious schemes.partial schemes.partial.correct schemes.partial.f1
    schemes.partial.incorrect schemes.partial.missed schemes.partial.partial schemes.partial.precision
    schemes.partial.recall schemes.partial.spurious schemes.strict schemes.strict.correct schemes.strict.f1
    schemes.strict.incorrect schemes.strict.missed schemes.strict.partial schemes.strict.precision
    schemes.strict.recall schemes.strict.spurious schemes.type schemes.type.correct schemes.type.f1
    schemes.type.incorrect schemes.type.missed schemes.type.partial schemes.type.precision schemes.type.recall
    schemes.type.spurious strict_f1 strict_precision strict_recall support types
"""
DOCUMENT = """
    confidences format_version gold gold.first_word gold.last_word gold.type id predicted predicted.first_word
    predicted.last_word predicted.type words
"""
KEYS = {
    "eval_results.json": SCORES,
    "test_results.json": SCORES,
    "train_results.json": """
        best_score loss padding_share seconds skipped_steps steps words_per_second
    """,
    "environment.json": "command commit device packages platform processes python threads",
    "training_args.json": """
        adam_epsilon adv_alpha adv_epsilon adv_name adv_steps adv_type averaging bf16 bilstm_learning_rate
        bilstm_size cache_dir callback casing class_weights config_name context_dropout context_size data_dir
        dataset_name ddp_timeout dev_file distill_temperature distill_weight do_adv do_eval do_lower_case do_predict
        do_train document_context early_stopping_patience ema_decay eval_all_checkpoints eval_max_seq_length
        evaluate_during_training feature_cache_dir fp16 fp16_backend fp16_opt_level freeze_embeddings freeze_layers
        from_scratch gradient_accumulation_steps gradient_checkpointing head head_learning_rate labels last_layers
        layer_decay learning_rate log_loss_steps logging_steps lr_scheduler_kwargs lr_scheduler_type markup
        max_batch_tokens max_grad_norm max_nonfinite_steps max_steps metric_for_best_model model_name_or_path
        model_type no_cuda num_train_epochs num_workers offset_unit optim output_dir overwrite_cache
        overwrite_output_dir per_gpu_eval_batch_size per_gpu_train_batch_size predict_checkpoints rdrop_alpha
        report_to resume_from_checkpoint save_steps save_total_limit seed shard_optimizer span_edges swa_start
        tag_column task_name teacher test_file tf32 tokenizer_name torch_compile torch_compile_backend train_file
        train_max_seq_length unlabelled_file warmup_proportion warmup_steps weight_decay window_overlap word_column
        word_dropout word_pooling word_unit
    """,
    "eval_documents.jsonl": DOCUMENT,
    "test_documents.jsonl": DOCUMENT,
    "test_predictions.jsonl": """
        entities entities.confidence entities.end entities.first_word entities.last_word entities.start
        entities.text entities.type format_version id tags text tokens
    """,
    "config.json": """
        architectures dtype eval_max_seq_length id2label kept_words label2id lowers_case tag_markup
        trained_positions vocabulary_digest window_overlap word_unit
    """,
}
HEAD_KEYS = {
    ("crf_run", "training_args.json"): "crf_constraints crf_learning_rate",
    ("softmax_run", "training_args.json"): "loss",
    ("crf_run", "config.json"): "crf_legal",
    ("softmax_run", "config.json"): "tag_loss",
}
PREDICTION = """
    entities entities.confidence entities.end entities.start entities.surface entities.type id text
"""
SERVICE = """
    Entity.confidence Entity.end Entity.start Entity.surface Entity.type Error.error GET/health:200,400
    GET/label_studio/health:200,400 HEAD/health:200,400 Health.status OneResult.entities
    POST/inception/predict:200,400,408,413,415,422,500,501,503,504 POST/inception/train:400,501
    POST/label_studio/predict:200,400,408,413,415,422,500,503,504
    POST/label_studio/setup:200,400,408,413,415,422,500,503,504
    POST/label_studio/webhook:200,400,408,413,415,422,500,501,503,504
    POST/predict:200,400,408,413,415,422,500,503,504 Results.results text texts
"""


def check(subject: str, found: Iterable[str], listed: str) -> None:
    """Compares names, in any order, with a list of this file; within parentheses the list may have spaces."""
    known = {re.sub(r"\s", "", name) for name in re.findall(r"[^\s(]+(?:\([^)]*\))?", listed)}
    names = {re.sub(r"\s", "_", name) for name in found}
    new, gone = sorted(names - known), sorted(known - names)
    message = f"{subject}: new {new}, gone {gone}: this is a change of contract: change the list only on purpose"
    assert new == gone == [], message


def test_a_difference_is_a_change_of_contract() -> None:
    check("names", ["b", "a(x,y=)"], "a(x, y=) b")
    with pytest.raises(AssertionError, match=r"names: new \['c'\], gone \['b'\]: this is a change of contract"):
        check("names", ["a", "c"], "a b")


def face(name: str, thing: Any) -> str:
    """``name(first,second=,*,third)`` of what can be called, with ``=`` where there is a default; else the name."""
    if not callable(thing) or (isinstance(thing, type) and name in ("Options", "config_class")):
        return name
    words: list[str] = []
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        words.append(f"{stars}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"{name}({','.join(word for word in words if word != 'self')})"


def methods(kind: type) -> Iterator[str]:
    """What a class of this project, or a base in it, defines without an underscore, and how it is called."""
    rooms = ("callbacks", "inference", "models", "processors")
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in rooms]
    for name in sorted({name for base in own for name in vars(base) if not name.startswith("_") or name == "__call__"}):
        thing = inspect.getattr_static(kind, name)
        yield face(name, getattr(kind, name) if isinstance(thing, classmethod | staticmethod) else thing)


@pytest.mark.parametrize("module", IMPORTS)
def test_names_to_import(module: str) -> None:
    found = importlib.import_module(module)
    listed = re.sub(r"\([^)]*\)", "", IMPORTS[module]).split()
    names = {*listed, *getattr(found, "__all__", [])}
    check(module, (face(name, getattr(found, name)) for name in names if hasattr(found, name)), IMPORTS[module])


@pytest.mark.parametrize("place", METHODS)
def test_methods_to_call(place: str) -> None:
    module, _, name = place.rpartition(".")
    inherited = METHODS["models.tagger.Tagger"] if place.startswith("models.Bert") else ""
    check(place, methods(getattr(importlib.import_module(module), name)), f"{inherited} {METHODS[place]}")


class Found(Exception):  # noqa: N818
    """Carries a parser out of a script."""


@pytest.mark.parametrize("script", FLAGS)
def test_flags_to_type(script: str) -> None:
    def found(parser: CommandLine, *_: Any) -> None:
        raise Found(parser)

    with patch.object(CommandLine, "parse_args", found), pytest.raises(Found) as end:
        importlib.import_module(script).main()
    names = {name for action in end.value.args[0]._actions for name in action.option_strings or [action.dest]}
    with_dashes = {f"--{name[2:].replace('_', '-')}" for name in names if "_" in name}
    if script.startswith("run_"):
        assert with_dashes <= names
    names -= with_dashes
    common = TRAINING_FLAGS if script.startswith("run_") else ""
    check(script, {name.removeprefix("--") for name in names - {"-h", "--help"}}, f"{common} {FLAGS[script]}")


def files_of(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield re.sub(r"events\.out\.tfevents\..*", "EVENTS", str(path.relative_to(folder)).replace(" ", "_"))


@pytest.mark.parametrize("run_name", ["crf_run", "softmax_run"])
def test_files_of_a_run(run_name: str, request: pytest.FixtureRequest) -> None:
    run: FinishedRun = request.getfixturevalue(run_name)
    checkpoint = sorted(run.folder.glob("checkpoint-*[0-9]"))[0].name
    others = {path.name for path in run.folder.glob("checkpoint-*")} - {checkpoint, "checkpoint-best"}
    names = (name for name in files_of(run.folder) if name.partition("/")[0] not in others)
    check(run_name, (name.replace(checkpoint, "checkpoint-STEP") for name in names), RUN_FILES)


def keys(content: Any, prefix: str = "") -> Iterator[str]:
    """``outer.inner`` for each key of JSON, except below the keys that depend on the data."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield f"{prefix}{name}"
            if name not in OPEN_KEYS:
                yield from keys(value, f"{prefix}{name}.")
    elif isinstance(content, list):
        for value in content:
            yield from keys(value, prefix)


@pytest.mark.parametrize("run_name", ["crf_run", "softmax_run"])
@pytest.mark.parametrize("name", KEYS)
def test_keys_of_results(name: str, run_name: str, request: pytest.FixtureRequest) -> None:
    run: FinishedRun = request.getfixturevalue(run_name)
    path = run.folder / name
    lines = path.read_text("utf-8").splitlines()
    found = set(keys([json.loads(line) for line in lines] if path.suffix == ".jsonl" else read_json(path)))
    if name == "config.json":  # what the head adds to the encoder's, and what transformers writes into each
        found -= read_json(Path(run.options["model_name_or_path"], name)).keys()
    check(f"{name} of {run_name}", found, f"{KEYS[name]} {HEAD_KEYS.get((run_name, name), '')}")


def test_files_of_a_run_under_lightning(encoder: Path, corpus_dir: Path, tmp_path: Path) -> None:
    call_lightning("run_pl_ner", **ner_options(encoder, corpus_dir, tmp_path, max_epochs=1))
    check("run_pl_ner", files_of(tmp_path / "run"), LIGHTNING_FILES)


def test_keys_of_a_prediction(crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--model", str(crf_run.folder), "--device", "cpu", "--output", str(tmp_path / "out.jsonl")]
    monkeypatch.setattr(sys, "argv", ["predict_ner.py", *words, "--text", "anna met bob near paris"])
    predict_ner.main()
    check("predict_ner.py", keys(read_json(tmp_path / "out.jsonl")), PREDICTION)


def test_what_the_service_takes_and_answers(softmax_run: FinishedRun) -> None:
    schema = create_service(NerPredictor.load(softmax_run.folder, "cpu"), ServiceLimits()).openapi()
    found = [
        f"{method.upper()}{path}:{','.join(sorted(one['responses']))}"
        for path, methods in schema["paths"].items()
        for method, one in methods.items()
    ]
    answers = schema["components"]["schemas"].items()
    found += [f"{name}.{key}" for name, answer in answers for key in answer["properties"]]
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    found += sorted(set(re.findall(r"'(texts?)'", str(body))))
    check("serve_ner.py", found, SERVICE)
