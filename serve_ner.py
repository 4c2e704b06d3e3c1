"""Finds entities in raw text as a web service: the texts of all callers in common batches.

python serve_ner.py --model outputs/sample_crf --port 8000
curl localhost:8000/predict -H "Content-Type: application/json" -d '{"text": "..."}'
python serve_ner.py --help
"""

import argparse
from dataclasses import fields

import uvicorn

from tools.command_line import Bounds, CommandLine
from tools.encoder_precision import PRECISIONS
from tools.log import setup_logging
from tools.predictor import NerPredictor
from tools.recipe import run_script
from tools.service import ServiceLimits, create_service


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
    parser = CommandLine(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    count, duration = Bounds(int, at_least=1), Bounds(float, above=0)
    parser.add_argument("--model", required=True, help="folder of a run")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 is all of this machine's")
    parser.add_argument("--port", type=Bounds(int, at_least=0, at_most=65535), default=8000, help="port to listen at")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; by default a GPU where there is one")
    parser.add_argument("--dtype", choices=PRECISIONS, default="fp32", help="precision of the encoder")
    defaults = ServiceLimits()
    for name, kind, what in (
        ("max_characters", count, "of a request; more get 413"),
        ("max_texts", count, "of a request; more get 413"),
        ("max_requests", count, "held at a time; further ones get 503"),
        ("timeout", duration, "seconds for a request; then it gets 504"),
        ("max_batch_size", count, "texts computed together"),
        ("batch_timeout", Bounds(float, at_least=0), "seconds that a text waits for others"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(defaults, name), help=what)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
