"""Settings of the training loop: optimiser, schedule and regularisation; what is logged, evaluated and saved."""

from dataclasses import dataclass

from common.options import option

ADAMS = ("adamw_torch_fused", "adamw_torch", "apex_fused_adam")
REPORTERS = ("tensorboard", "mlflow", "wandb")
AVERAGES = ("none", "ema", "swa")
BEST_MODEL_METRICS = ("f1", "precision", "recall", "accuracy", "loss", "strict_f1", "strict_precision", "strict_recall")
LARGEST_SEED = 2**32 - 2**16  # numpy takes 32 bits, and each process adds its rank
_SCHEDULES_WITH_OPTIONS = (
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
)
SCHEDULES = ("linear", *_SCHEDULES_WITH_OPTIONS, "constant", "constant_with_warmup")


@dataclass(frozen=True)
class OptimisationSettings:
    """Batches, optimiser, schedule and regularisation."""

    per_gpu_train_batch_size: int = option(
        8, "windows per training batch on each GPU or CPU process", common=True, at_least=1
    )
    per_gpu_eval_batch_size: int = option(
        8, "windows per evaluation batch on each GPU or CPU process", common=True, at_least=1
    )
    max_batch_tokens: int = option(
        0, "maximum number of padded tokens per training batch, instead of windows; 0: off", at_least=0
    )
    gradient_accumulation_steps: int = option(
        1, "batches whose gradients are accumulated before a step", common=True, at_least=1
    )
    learning_rate: float = option(5e-5, "peak learning rate of the encoder", common=True, at_least=0)
    head_learning_rate: float = option(
        -1.0,
        "peak learning rate of the linear layer; -1: that of the CRF, else of the BiLSTM, else of the encoder",
        at_least=0,
        also=-1,
    )
    bilstm_learning_rate: float = option(
        1e-3, "with bilstm_size: peak learning rate of the LSTM", needs={"bilstm_size": ()}, at_least=0
    )
    weight_decay: float = option(0.01, "weight decay, except for biases and normalisation weights", at_least=0)
    adam_epsilon: float = option(1e-8, "epsilon of AdamW", needs={"optim": ADAMS}, above=0)
    max_grad_norm: float = option(1.0, "maximum gradient norm; 0: no clipping", at_least=0)
    max_nonfinite_steps: int = option(
        20, "stop after this many consecutive steps with a loss or gradients that are not finite", at_least=1
    )
    num_train_epochs: float = option(3.0, "passes over the training data; may be a fraction", common=True, at_least=0)
    max_steps: int = option(-1, "optimiser steps, instead of num_train_epochs", common=True, at_least=1, also=-1)
    optim: str = option(
        "adamw_torch_fused",
        "optimiser; adafactor needs less memory; apex_fused_adam needs apex",
        ["adamw_torch_fused", "adamw_torch", "adafactor", "apex_fused_adam"],
    )
    layer_decay: float = option(
        1.0,
        "layer-wise learning rate decay: ratio between the rates of a layer and the layer above; 1: off",
        above=0,
        at_most=1,
    )
    freeze_layers: int = option(0, "freeze the lowest N encoder layers", at_least=0)
    freeze_embeddings: bool = option(False, "freeze the encoder's embeddings")
    lr_scheduler_type: str = option("linear", "learning rate schedule after the warm-up", SCHEDULES)
    lr_scheduler_kwargs: str = option(
        "",
        """options of the schedule as JSON, such as '{"num_cycles": 3}' for cosine_with_restarts""",
        needs={"lr_scheduler_type": _SCHEDULES_WITH_OPTIONS},
    )
    warmup_proportion: float = option(
        0.1, "fraction of the steps used for linear warm-up", common=True, at_least=0, at_most=1
    )
    warmup_steps: int = option(0, "warm-up steps, instead of warmup_proportion", at_least=0)
    averaging: str = option(
        "none",
        "evaluate and save averaged weights: exponential moving average, or stochastic weight averaging",
        AVERAGES,
    )
    ema_decay: float = option(
        0.99, "with averaging ema: decay per step", needs={"averaging": ["ema"]}, at_least=0, at_most=1
    )
    swa_start: float = option(
        0.75,
        "with averaging swa: fraction of the run after which averaging starts",
        needs={"averaging": ["swa"]},
        at_least=0,
        below=1,
    )
    do_adv: bool = option(False, "adversarial training on perturbed embeddings")
    adv_type: str = option(
        "fgm",
        "fgm: one step (Miyato et al. 2017); pgd: several (Madry et al. 2018)",
        ["fgm", "pgd"],
        needs={"do_adv": [True]},
    )
    adv_epsilon: float = option(1.0, "maximum norm of the perturbation", needs={"do_adv": [True]}, above=0)
    adv_alpha: float = option(0.3, "with adv_type pgd: step size", needs={"adv_type": ["pgd"]}, above=0)
    adv_steps: int = option(3, "with adv_type pgd: number of steps", needs={"adv_type": ["pgd"]}, at_least=1)
    adv_name: str = option(
        "word_embeddings", "perturb the parameters whose name contains this", needs={"do_adv": [True]}
    )
    rdrop_alpha: float = option(
        0.0, "weight of the R-Drop loss between two passes with different dropout; 0: off", at_least=0
    )
    teacher: str = option(
        "",
        "folders of trained models whose tag distributions the model learns (distillation)",
        nargs="+",
    )
    distill_weight: float = option(
        0.5,
        "with teacher: weight of the distillation loss; the rest is that of the gold loss",
        needs={"teacher": ()},
        at_least=0,
        at_most=1,
    )
    distill_temperature: float = option(
        1.0, "with teacher: temperature of both distributions, for heads without a CRF", needs={"teacher": ()}, above=0
    )
    unlabelled_file: str = option(
        "",
        "with teacher: train on these texts too; one per line, or JSON lines with a text (.jsonl)",
        needs={"teacher": ()},
    )
    missing_entities: bool = option(
        False,
        "training texts may lack entities: a word outside of the annotated ones may be in an entity of any type that "
        "the text does not call complete",
    )
    annotated_share: float = option(
        0.0,
        "with missing_entities: share of the words of entities that is annotated in texts that lack some; "
        "0: what train has, compared with entity_ratio",
        needs={"missing_entities": [True]},
        at_least=0,
        below=1,
    )
    entity_ratio: float = option(
        0.0,
        "with missing_entities: expected share of words in entities; 0: that of dev",
        needs={"missing_entities": [True]},
        at_least=0,
        below=1,
    )
    entity_ratio_margin: float = option(
        0.1,
        "with missing_entities: how far the model may be from it without a penalty, as a share of it",
        needs={"missing_entities": [True]},
        at_least=0,
        below=1,
    )
    entity_ratio_weight: float = option(
        1.0,
        "with missing_entities: weight of the penalty",
        needs={"missing_entities": [True]},
        at_least=0,
    )
    seed: int = option(
        42,
        "random seed of initial weights, dropout and the order of the data",
        common=True,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    num_workers: int = option(0, "worker processes that prepare batches", at_least=0)


@dataclass(frozen=True)
class LoggingSettings:
    """What is evaluated, logged and saved during training, and when."""

    logging_steps: int = option(
        -1,
        "evaluate on dev every N steps (see evaluate_during_training); -1: every epoch",
        common=True,
        at_least=1,
        also=-1,
    )
    save_steps: int = option(
        0,
        "save a checkpoint to resume from every N steps; -1: every epoch; 0: only when interrupted",
        common=True,
        at_least=-1,
    )
    save_total_limit: int = option(0, "keep only the latest N checkpoints; 0: keep all", at_least=0)
    log_loss_steps: int = option(
        20, "log loss, learning rates and speed every N steps; -1: every epoch", at_least=1, also=-1
    )
    report_to: str = option("tensorboard", "trackers, separated by commas: tensorboard, mlflow, wandb; or none")
    callback: str = option("", "your own callback as module:Class; see docs/callbacks.md")
    evaluate_during_training: bool = option(
        True, "evaluate on dev during training, and restore the best model at the end"
    )
    metric_for_best_model: str = option(
        "f1",
        "dev score that selects the best model; for loss, lower is better",
        BEST_MODEL_METRICS,
        needs={"evaluate_during_training": [True]},
    )
    early_stopping_patience: int = option(
        0,
        "stop after this many evaluations without improvement; 0: never",
        needs={"evaluate_during_training": [True]},
        at_least=0,
    )

    @property
    def reporters(self) -> list[str]:
        """Names of the trackers in ``report_to``."""
        return [] if self.report_to == "none" else self.report_to.split(",")
