"""Finds entities in raw text as a web service: the texts of all callers in common batches.

python serve_ner.py --model outputs/sample_crf --port 8000
curl localhost:8000/predict -H "Content-Type: application/json" -d '{"text": "..."}'
python serve_ner.py --help
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import uvicorn

from tools.encoder_precision import PRECISIONS
from tools.log import setup_logging
from tools.predictor import NerPredictor
from tools.recipe import run_script
from tools.service import ServiceLimits, create_service

Number = TypeVar("Number", int, float)


def main() -> None:
    args = parse_arguments()
    setup_logging()
    predictor = NerPredictor.load(args.model, args.device, args.dtype)
    limits = ServiceLimits(**{field.name: getattr(args, field.name) for field in fields(ServiceLimits)})
    uvicorn.run(
        create_service(predictor, limits),
        host=args.host,
        port=args.port,
        log_config=None,
        log_level="info",
        access_log=False,
        timeout_graceful_shutdown=round(args.timeout) + 1,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    whole, any_number = positive(int), positive(float)
    parser.add_argument("--model", required=True, help="folder of a run")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 is all of this machine's")
    parser.add_argument("--port", type=port, default=8000, help="port to listen at")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; by default a GPU where there is one")
    parser.add_argument("--dtype", choices=PRECISIONS, default="fp32", help="precision of the encoder")
    defaults = ServiceLimits()
    for name, kind, what in (
        ("max_characters", whole, "of a request; more get 413"),
        ("max_texts", whole, "of a request; more get 413"),
        ("max_requests", whole, "held at a time; further ones get 503"),
        ("timeout", any_number, "seconds for a request; then it gets 504"),
        ("max_batch_size", whole, "texts computed together"),
        ("batch_timeout", positive(float, or_zero=True), "seconds that a text waits for others"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(defaults, name), help=what)
    return parser.parse_args()


def positive(kind: type[Number], or_zero: bool = False) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        number = kind(text)
        if not (0 < number < math.inf or (or_zero and number == 0)):
            raise argparse.ArgumentTypeError(f"{text} is not positive, or not finite")
        return number

    parse.__name__ = kind.__name__  # for argparse's message
    return parse


def port(text: str) -> int:
    if not 0 <= int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    run_script(main)
