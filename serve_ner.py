"""Serve a trained model over HTTP; texts of all callers are computed in common batches.

python serve_ner.py --model outputs/sample_crf --port 8000
curl localhost:8000/predict -H "Content-Type: application/json" -d '{"text": "..."}'
python serve_ner.py --help
"""

import argparse
import logging
import socket
import sys
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI

from common.command_line import Bounds, CommandLine
from common.log import setup_logging
from inference.asked import add_asked, asked_of
from inference.predictor import PRECISIONS, NerPredictor
from inference.server import CANNOT_START, BoundedProtocol, RateLimit, open_file_limit, run_workers
from inference.service import ServiceLimits, create_service
from models.heads.softmax import DECODINGS
from tools.script import run_script

logger = logging.getLogger("inference.serve")


def main() -> None:
    args = parse_arguments()
    set_up_logging()
    limits = ServiceLimits(**{field.name: getattr(args, field.name) for field in fields(ServiceLimits)})
    # Half of the files that a process may open are for connections, two per request. An eighth is for those accepted
    # at once; as many again may be closing, and as many new.
    files = open_file_limit()
    if limits.max_requests > files // 4:
        limits = replace(limits, max_requests=max(1, files // 4))
        logger.warning("--max_requests lowered to %d because ulimit -n is %d", limits.max_requests, files)
    protocol = partial(
        BoundedProtocol,
        max_connections=2 * limits.max_requests,
        read_timeout=limits.read_timeout,
        answer_timeout=limits.timeout + limits.read_timeout,
    )
    options: dict[str, Any] = {
        "host": args.host,
        "port": args.port,
        "http": protocol,
        "ws": "none",
        "backlog": min(2048, max(1, files // 8)),
        "log_config": None,
        "log_level": "info",
        "access_log": False,
        "timeout_graceful_shutdown": round(limits.timeout) + 1,
    }
    if args.workers == 1:
        uvicorn.run(loaded_service(args, limits), **options)
    else:
        listener = uvicorn.Config("", **options).bind_socket()  # refuses connections until a process listens
        run_workers(args.workers, serve_in_worker, args, limits, options, listener)


def set_up_logging() -> None:
    setup_logging()
    for handler in logging.getLogger().handlers:
        handler.addFilter(RateLimit())


def loaded_service(args: argparse.Namespace, limits: ServiceLimits) -> FastAPI:
    """Load and warm up the model, and create its service."""
    predictor = NerPredictor.load(
        args.model,
        args.device,
        args.dtype,
        head=args.head,
        asked=asked_of(args),
        decode=args.decode,
        transition_biases=args.transition_biases,
    )
    predictor.warm_up()
    logger.info("Model loaded and warmed up")
    return create_service(predictor, limits)


def serve_in_worker(
    args: argparse.Namespace, limits: ServiceLimits, options: dict[str, Any], listener: socket.socket
) -> None:
    set_up_logging()
    torch.set_num_threads(max(1, torch.get_num_threads() // args.workers))
    try:
        service = loaded_service(args, limits)
    except (ValueError, OSError) as error:
        logger.error("error: %s", error)
        sys.exit(CANNOT_START)
    uvicorn.Server(uvicorn.Config(service, **options)).run([listener])


def parse_arguments() -> argparse.Namespace:
    parser = CommandLine(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", required=True, help="output_dir of a training run")
    parser.add_argument("--head", default="", help="head of the model if it is your own, as module:Class")
    text = "tags of a softmax head: the best of each word, or the best legal sequence; default: that of the model"
    parser.add_argument("--decode", choices=DECODINGS, default="", help=text)
    parser.add_argument("--transition_biases", default="", help="with --decode viterbi: JSON file of biases")
    parser.add_argument("--host", type=address, default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    port = Bounds(int, at_least=0, at_most=65_535)
    parser.add_argument("--port", type=port, default=8000, help="port to listen on; 0 for a free one")
    workers = Bounds(int, at_least=1, at_most=128)
    parser.add_argument("--workers", type=workers, default=1, help="number of processes, each with its own model")
    parser.add_argument("--device", type=device, help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument("--dtype", choices=PRECISIONS, default="fp32", help="precision of the encoder")
    add_asked(parser)
    for limit in fields(ServiceLimits):
        described = {"type": limit.metadata["bounds"], "help": limit.metadata["help"], "default": limit.default}
        parser.add_argument(f"--{limit.name}", **described)
    return parser.parse_args()


def address(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; use 0.0.0.0 to listen on all addresses")
    return text


def device(text: str) -> str:
    try:
        torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a torch device; use cpu, cuda or cuda:1") from None
    return text


if __name__ == "__main__":
    run_script(main)
