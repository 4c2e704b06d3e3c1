"""Every name that users import, type or read. A change of one is a change of these lists, made on purpose."""

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
        BertNERModel(encoder, labels) evaluate(model, examples, batch_size) main() train(model, train_set,
        dev_set, args)
    """,
    "models": """
        BertCrfForNer(config) BertCrfPerTypeForNer(config) BertSoftmaxForNer(config) BertSpanForNer(config)
        HEADS head_named(name)
    """,
    "models.crf": """
        CRF(num_tags, batch_first=, legal=) Paths(tags, scores) ProbableSpans(rows, types, firsts, lasts,
        probabilities) SpanTags(only, first, middle, last, before, after_only, after_last)
        legal_transitions(tags)
    """,
    "processors": """
        DataError(message, path=, line=) Example(guid, words, entities=, text=, offsets=, line=, word_lines=,
        unannotated=, confidences=, words_given=, document=, complete=) convert_examples_to_features(examples,
        label_list, max_seq_length, tokenizer, cls_token_at_end=, cls_token=, cls_token_segment_id=, sep_token=,
        pad_on_left=, pad_token=, pad_token_segment_id=, sequence_a_segment_id=, casing_segment_ids=, markup=,
        window_overlap=)
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
        max_seq_length=, window_overlap=, batch_tokens=, context_size=, thresholds=)
    """,
    "inference.asked": """
        Asked(threshold=, recall=, precision=, max_missed=, candidates=, certainty=) add_asked(parser)
        asked_of(args)
    """,
    "inference.export_onnx": "export(folder, path, head=, max_f1_loss=) main()",
    "inference.hub_model": """
        BertCrfForNer(config) BertSoftmaxForNer(config) Entity(type, first_word, last_word) TaggedText(tags,
        entities) entities_of(tags)
    """,
    "analysis.compare_runs": "main(argv=)",
    "analysis.report.__main__": "main()",
    "tools.convert_corpus": "main()",
    "tools.new_encoder": "main()",
    "tools.publish": "main() upload(copy, repo_id, private, api) write_copy(folder, copy, repo_id, license=)",
    "tools.find_label_errors": "find_label_errors(settings, options, head) main()",
    "tools.label_texts": "main()",
    "tools.select_texts": "main()",
    "tools.combine_sources": "main()",
    "tools.import_markup": "main()",
    "tools.make_gazetteer": "main()",
    "tools.sweep": "Sweep(output_dir, search, flags=, script=, metric=, trials=, seed=) main() run_sweep(sweep)",
    "models.tagger": "Tagger(config)",
}
METHODS = {
    "models.tagger.Tagger": """
        Options add_token_types(count) candidates(emissions, word_mask, threshold) compatible(entities)
        confidence_temperatures config_class configure(config, labels, options) emissions(states, word_mask)
        encode(annotations) expressible(entities) forward(input_ids, attention_mask=, token_type_ids=,
        word_positions=, word_mask=, labels=, num_items_in_batch=, word_lengths=) from_pretrained(name_or_path,
        *args, **kwargs) has_candidates head_weight keep_labels_of(former) label_names learning_rates(options)
        log_probabilities(emissions) losses(emissions, targets, word_mask) markup missing_labels nests
        num_scores(config) override(config, options) predict(emissions, word_mask, with_confidence=)
        read_labels(names) reset_head() script select_labels(ids, names) title types unexportable
        training_emissions(states, word_mask, targets) uncertainty(emissions, word_mask) warm_up(emissions,
        word_mask)
    """,
    "models.BertCrfForNer": """
        decode(emissions, word_mask) distillation_loss(emissions, word_mask, taught, temperature=)
        entity_confidences(emissions, word_mask, entities) expectations(emissions, word_mask, temperature=)
        calibrated(emissions) expected_entity_words(emissions, word_mask) lattice() log_missed
        outside_confidences(emissions, word_mask, spans) tag_names
    """,
    "models.BertSoftmaxForNer": """
        decode(emissions, word_mask) distillation_loss(emissions, word_mask, taught, temperature=)
        entity_confidences(emissions, word_mask, entities) expectations(emissions, word_mask, temperature=)
        searches calibrated(emissions) lattice() legal_crf(temperature=) tag_names token_losses(logits, labels,
        weights=, of_annotation=) expected_entity_words(emissions, word_mask) log_missed
        outside_confidences(emissions, word_mask, spans)
    """,
    "models.crf.CRF": """
        best_paths(emissions, mask=, nbest=, allowed=) decode(emissions, mask=, nbest=, allowed=)
        entropy(emissions, mask=, allowed=, differentiable=) forward(emissions, tags=, mask=, reduction=,
        allowed=, weight=) log_partition(emissions, mask=, allowed=) marginals(emissions, mask=, pairwise=,
        allowed=, differentiable=) probable_spans(emissions, mask, tags, threshold) sample(emissions, mask=, n=,
        generator=, allowed=) set_legal(legal) span_confidence(emissions, mask, spans, inside, before=, after=)
    """,
    "inference.predictor.NerPredictor": """
        __call__(texts) load(folder, device=, dtype=, batch_tokens=, word_unit=, head=, asked=, decode=,
        transition_biases=) stream(texts, look_ahead=) has_context tag_words(texts, documents=)
        warm_up()
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
    adam_epsilon add_types adv_alpha adv_epsilon adv_name adv_steps adv_type annotated_share averaging bf16
    bilstm_learning_rate bilstm_size cache_dir callback casing class_weights complete_types config_file config_name
    context_dropout context_size corpora crf_constraints crf_learning_rate data_dir dataset_name ddp_timeout decode
    dev_file distill_temperature distill_weight do_adv do_eval do_lower_case do_predict do_train document_context
    early_stopping_patience ema_decay entity_ratio entity_ratio_margin entity_ratio_weight eval_all_checkpoints
    eval_max_seq_length evaluate_during_training feature_cache_dir fp16 fp16_backend fp16_opt_level
    freeze_embeddings freeze_layers from_scratch gradient_accumulation_steps gradient_checkpointing head
    head_learning_rate help_all labels last_layers layer_decay learning_rate local_rank log_loss_steps logging_steps
    longest_span loss loss_type lr_scheduler_kwargs lr_scheduler_type markup max_batch_tokens max_grad_norm
    max_nonfinite_steps max_steps metric_for_best_model missing_entities model_name_or_path model_type
    no_crf_constraints no_cuda no_evaluate_during_training no_soft_label num_train_epochs num_workers offset_unit
    optim output_dir overwrite_cache overwrite_output_dir per_gpu_eval_batch_size per_gpu_train_batch_size
    predict_checkpoints rdrop_alpha report_to resume_from_checkpoint save_steps save_total_limit seed
    shard_optimizer soft_label span_edges span_learning_rate span_size swa_start tag_column task_name teacher
    test_file tf32 tokenizer_name torch_compile torch_compile_backend train_file train_max_seq_length
    transition_biases unlabelled_file warmup_proportion warmup_steps weight_decay window_overlap word_column
    word_dropout word_pooling word_unit
"""
FLAGS = {
    "run_ner_crf": "",
    "run_ner_softmax": "",
    "run_ner_span": "",
    "run_pl_ner": """
        accumulate_grad_batches adafactor attention_dropout devices dropout eval_batch_size gpus
        gradient_clip_val log_every_n_steps lr_scheduler max_epochs max_seq_length num_nodes task_type
        train_batch_size
    """,
    "run_pl_glue": """
        accumulate_grad_batches adafactor attention_dropout devices dropout eval_batch_size gpus
        gradient_clip_val log_every_n_steps lr_scheduler max_epochs max_seq_length num_nodes task
        train_batch_size
    """,
    "predict_ner": """
        batch_tokens candidates certainty decode device dtype files format head max_missed model output
        precision recall replace_bad_utf8 text threshold transition_biases unit word_unit
    """,
    "serve_ner": """
        batch_timeout candidates certainty decode device dtype head host max_batch_size max_characters
        max_missed max_requests max_texts model port precision read_timeout recall threshold timeout
        transition_biases workers
    """,
    "analysis.compare_runs": "baseline latex markdown plot resamples runs score seed split",
    "analysis.report.__main__": "head output run",
    "tools.sweep": "sweep",
    "tools.find_label_errors": f"{TRAINING_FLAGS} folds min_suspicion tasks",
    "tools.label_texts": "certainty files head no_cuda output run",
    "tools.select_texts": "by files head leave_out most_similar no_cuda number output run to",
    "tools.combine_sources": """
        files gazetteer ignore_case max_missed nested offset_unit output reliability source_types span_edges
        threshold word_unit
    """,
    "tools.import_markup": "answers min_similarity output source texts types",
    "tools.make_gazetteer": "ignore_case min_share output source",
    "tools.new_encoder": "cased encoder keep_layers layers max_positions output_dir vocab width",
    "tools.convert_corpus": """
        offset_unit source span_edges tag_column target to word_column word_unit
    """,
    "inference.export_onnx": "head int8 max_f1_loss model output",
    "tools.publish": "dry_run license model private repo_id",
}

# EVENTS is a file of TensorBoard.
MODEL_FILES = "config.json model.safetensors tokenizer.json tokenizer_config.json training_args.json"
SCORE_FILES = """
    eval_dial.json eval_documents.jsonl eval_results.json eval_results.txt test_dial.json test_documents.jsonl
    test_predictions.jsonl test_results.json test_results.txt
"""
RUN_FILES = " ".join(
    [
        ".run.lock .run.lock.holder environment.json run.log tensorboard/EVENTS train_results.json",
        "checkpoint-STEP/training_state.pt",
        *(
            f"{folder}{name}"
            for folder in ("", "checkpoint-STEP/", "checkpoint-best/")
            for name in f"{MODEL_FILES} {SCORE_FILES}".split()
        ),
    ]
)
LIGHTNING_FILES = " ".join(
    [
        ".run.lock .run.lock.holder environment.json run.log tensorboard/EVENTS train_results.json last.ckpt",
        f"test_predictions.txt {MODEL_FILES} {SCORE_FILES}",
        *(f"checkpoint-best/{name}" for name in MODEL_FILES.split()),
    ]
)

# A dot leads to what a key holds. What is below OPEN_KEYS depends on the data.
OPEN_KEYS = {"types", "lengths", "packages", "id2label", "label2id"}
SCORES = """
    accuracy calibration calibration.bins calibration.bins.confidence calibration.bins.high calibration.bins.low
    calibration.bins.precision calibration.bins.size calibration.brier calibration.error confusion
    confusion.matrix confusion.missed confusion.spurious confusion.types dial dial.asked dial.dev_precision
    dial.dev_recall dial.precision dial.recall documents errors errors.boundary errors.missed errors.right
    errors.spurious errors.type errors.type_and_boundary f1 intervals intervals.f1 intervals.precision
    intervals.recall lengths loss novelty novelty.seen_in_train nesting novelty.seen_in_train.f1
    novelty.seen_in_train.precision novelty.seen_in_train.recall novelty.seen_in_train.support novelty.unseen
    novelty.unseen.f1 novelty.unseen.precision novelty.unseen.recall novelty.unseen.support precision recall
    schemes schemes.exact schemes.exact.correct schemes.exact.f1 schemes.exact.incorrect schemes.exact.missed
    schemes.exact.partial schemes.exact.precision schemes.exact.recall schemes.exact.spurious schemes.partial
    schemes.partial.correct schemes.partial.f1 schemes.partial.incorrect schemes.partial.missed
    schemes.partial.partial schemes.partial.precision schemes.partial.recall schemes.partial.spurious
    schemes.strict schemes.strict.correct schemes.strict.f1 schemes.strict.incorrect schemes.strict.missed
    schemes.strict.partial schemes.strict.precision schemes.strict.recall schemes.strict.spurious schemes.type
    schemes.type.correct schemes.type.f1 schemes.type.incorrect schemes.type.missed schemes.type.partial
    schemes.type.precision schemes.type.recall schemes.type.spurious strict_f1 strict_precision strict_recall
    support types
"""
DOCUMENT = """
    confidences format_version gold gold.first_word gold.last_word gold.type id predicted predicted.first_word
    predicted.last_word predicted.type words
"""
KEYS = {
    "eval_results.json": SCORES,
    "test_results.json": SCORES,
    "train_results.json": """
        best_score loss memory_gib padding_share seconds skipped_steps steps utilisation words_per_second
    """,
    "environment.json": "command commit device packages platform processes python threads",
    "training_args.json": """
        adam_epsilon add_types adv_alpha adv_epsilon adv_name adv_steps adv_type annotated_share averaging bf16
        bilstm_learning_rate bilstm_size cache_dir callback casing class_weights complete_types config_name
        context_dropout context_size corpora data_dir dataset_name ddp_timeout dev_file distill_temperature
        distill_weight do_adv do_eval do_lower_case do_predict do_train document_context early_stopping_patience
        ema_decay entity_ratio entity_ratio_margin entity_ratio_weight eval_all_checkpoints eval_max_seq_length
        evaluate_during_training feature_cache_dir fp16 fp16_backend fp16_opt_level freeze_embeddings
        freeze_layers from_scratch gradient_accumulation_steps gradient_checkpointing head head_learning_rate
        labels last_layers layer_decay learning_rate log_loss_steps logging_steps lr_scheduler_kwargs
        lr_scheduler_type markup max_batch_tokens max_grad_norm max_nonfinite_steps max_steps
        metric_for_best_model missing_entities model_name_or_path model_type no_cuda num_train_epochs
        num_workers offset_unit optim output_dir overwrite_cache overwrite_output_dir per_gpu_eval_batch_size
        per_gpu_train_batch_size predict_checkpoints rdrop_alpha report_to resume_from_checkpoint save_steps
        save_total_limit seed shard_optimizer span_edges swa_start tag_column task_name teacher test_file tf32
        tokenizer_name torch_compile torch_compile_backend train_file train_max_seq_length unlabelled_file
        warmup_proportion warmup_steps weight_decay window_overlap word_column word_dropout word_pooling
        word_unit
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
    ("softmax_run", "training_args.json"): "decode loss transition_biases",
    ("crf_run", "config.json"): "crf_legal",
    ("softmax_run", "config.json"): "tag_decoding tag_loss",
}
PREDICTION = "entities entities.confidence entities.end entities.start entities.surface entities.type id text"
SERVICE = """
    Entity.confidence Entity.end Entity.start Entity.surface Entity.type Error.error GET/health:200,400
    GET/label_studio/health:200,400 HEAD/health:200,400 Health.status OneResult.entities
    POST/inception/predict:200,400,408,413,415,422,500,501,503,504 POST/inception/train:400,501
    POST/label_studio/predict:200,400,408,413,415,422,500,503,504
    POST/label_studio/setup:200,400,408,413,415,422,500,503,504
    POST/label_studio/webhook:200,400,408,413,415,422,500,501,503,504
    POST/predict:200,400,408,413,415,422,500,503,504 Results.results text texts
"""
