"""Named entity recognition with a BERT-family encoder and a conditional random field.

bash scripts/run_ner_crf.sh                                   # the bundled sample
python run_ner_crf.py --help
"""

from models import BertCrfForNer
from tools.arguments import CrfArguments, parse_arguments
from tools.data import load_and_cache_examples
from tools.evaluate import evaluate
from tools.loading import load_model_and_tokenizer
from tools.predict import predict
from tools.recipe import evaluate_run, finish_run, predict_run, run_script, start_run, train_and_save
from tools.train import train

__all__ = ["evaluate", "load_and_cache_examples", "main", "predict", "train"]


def main() -> None:
    args = parse_arguments(CrfArguments)
    start_run(args, BertCrfForNer)
    model, tokenizer = load_model_and_tokenizer(args, BertCrfForNer)
    if args.do_train:
        train_and_save(args, model, tokenizer)
    if args.do_eval:
        evaluate_run(args, model, tokenizer)
    if args.do_predict:
        predict_run(args, model, tokenizer)
    finish_run(args)


if __name__ == "__main__":
    run_script(main)
