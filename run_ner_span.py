"""Named entity recognition with a BERT-family encoder and a head that finds starts and ends of entities.

bash scripts/run_ner_span.sh                                   # the bundled sample
python run_ner_span.py --help
"""

from models import BertSpanForNer
from tools.command_line import chosen_head, parse_settings
from tools.data import load_and_cache_examples
from tools.evaluate import evaluate, predict
from tools.loading import load_model_and_tokenizer
from tools.recipe import evaluate_run, finish_run, predict_run, start_run, train_and_save
from tools.script import run_script
from tools.train import train

__all__ = ["evaluate", "load_and_cache_examples", "main", "predict", "train"]


def main() -> None:
    head = chosen_head(BertSpanForNer)
    settings = parse_settings(head.Options, (__doc__ or "").partition("\n")[0])
    run = start_run(settings, head)
    run, model, tokenizer = load_model_and_tokenizer(run, head)
    if settings.actions.do_train:
        train_and_save(run, model, tokenizer)
    if settings.actions.do_eval:
        evaluate_run(run, model, tokenizer)
    if settings.actions.do_predict:
        predict_run(run, model, tokenizer)
    finish_run(run)


if __name__ == "__main__":
    run_script(main)
