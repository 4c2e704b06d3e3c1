"""Find entities in raw text with a trained model; entities have character offsets and confidences.

python predict_ner.py --model outputs/sample_crf --text "..."
python predict_ner.py --model outputs/sample_crf news.txt.gz --output entities.jsonl.gz
python predict_ner.py --help
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from itertools import tee

from tqdm import tqdm

from common.command_line import Bounds, CommandLine
from common.log import setup_logging
from inference.asked import add_asked, asked_of
from inference.formats import FORMATS, check_output, write_predictions
from inference.predictor import PRECISIONS, NerPredictor
from models.heads.softmax import DECODINGS
from processors.formats.brat import check_brat_types
from processors.text.text_files import RawText, check_sources, read_texts, without_surrogates
from processors.text.word_cutting import WORD_UNITS
from tools.script import run_script

logger = logging.getLogger(__name__)


def main() -> None:
    args = parse_arguments()
    setup_logging()
    check_sources(args.files)
    check_output(args.format, args.output, args.files)
    predictor = NerPredictor.load(
        args.model,
        args.device,
        args.dtype,
        args.batch_tokens,
        args.word_unit,
        args.head,
        asked_of(args),
        args.decode,
        args.transition_biases,
    )
    if args.format == "brat":
        check_brat_types(predictor.model.types)
    if predictor.has_context and args.unit == "line" and args.files:
        logger.info("The model reads sentences in their document: with --unit file, the lines of a file are sentences")
    items, same_items = tee(tqdm(texts(args), unit=" texts", disable=not sys.stderr.isatty()))
    entities = predictor.stream(item.text for item in items)
    write_predictions(zip(same_items, entities, strict=True), args.format, args.output, predictor.cutter)


def texts(args: argparse.Namespace) -> Iterator[RawText]:
    named = (RawText(f"text:{number}", text) for number, text in enumerate(args.text, start=1))
    yield from without_surrogates(named, "--text")
    yield from read_texts(args.files, args.unit == "file", args.replace_bad_utf8)


def parse_arguments() -> argparse.Namespace:
    parser = CommandLine(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="texts, one per line, or .jsonl; may be .gz; - for stdin"
    )
    parser.add_argument("--model", required=True, help="output_dir of a training run")
    parser.add_argument("--head", default="", help="head of the model if it is your own, as module:Class")
    text = "tags of a softmax head: the best of each word, or the best legal sequence; default: that of the model"
    parser.add_argument("--decode", choices=DECODINGS, default="", help=text)
    parser.add_argument("--transition_biases", default="", help="with --decode viterbi: JSON file of biases")
    parser.add_argument("--text", action="append", default=[], help="a text; may be given several times")
    parser.add_argument("--unit", choices=["line", "file"], default="line", help="what a text is in a .txt file")
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="format of the output")
    parser.add_argument("--output", default="", help="file to write, gzipped if it ends in .gz; a new folder for brat")
    parser.add_argument("--dtype", choices=PRECISIONS, default="fp32", help="precision of the encoder")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument("--batch_tokens", type=Bounds(int, at_least=1), help="tokens per batch of the encoder")
    parser.add_argument("--word_unit", choices=WORD_UNITS, help="word unit, instead of that of the model")
    add_asked(parser)
    parser.add_argument("--replace_bad_utf8", action="store_true", help="read bytes that are not UTF-8 as U+FFFD")
    args = parser.parse_args()
    if not (args.files or args.text):
        parser.error("nothing to read: name files, - for the standard input, or --text")
    return args


if __name__ == "__main__":
    run_script(main)
