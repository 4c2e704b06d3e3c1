"""Compare the CRF layer with other implementations: time, memory and exactness.

    python -m benchmarks.crf                     # training step and decoding, for the shapes in docs/crf.md
    python -m benchmarks.crf --shape 32,128,9    # another shape: B,W,C
    python -m benchmarks.crf --encoder           # training step of an encoder with a CRF and with softmax

`crf_peers.py` says how to install the other implementations; the row of one that is missing says so.

Rows are ragged. A training step is what a loop calls: loss, backward, gradients of emissions and parameters. All
implementations take turns within a round, so that whatever else the machine does hits them alike; times are medians
over rounds. The error is the largest deviation of the emissions' gradient (which is a difference of probabilities)
from float64 log space.
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.crf_peers import PEERS, Batch, Contender
from models.crf import CRF
from models.crf.backend import use_backend
from models.crf.lattice import lattice_of, log_backward, log_forward, log_partition

Work = Callable[[Contender, Batch], None]
SHAPES = [(32, 24, 9), (32, 128, 9), (32, 128, 25), (32, 512, 9), (32, 512, 64)]


def contenders(num_tags: int, device: torch.device) -> dict[str, Contender | None]:
    """All implementations with the same parameters, pytorch-crf first; None for one that is not installed."""
    found: dict[str, Contender | None] = {}
    for name, make in PEERS.items():
        try:
            found[name] = make(num_tags)
        except ImportError:
            found[name] = None
    for backend, kind in (("torch", device.type), ("cpp", "cpu"), ("triton", "cuda")):
        if kind == device.type:
            found[f"ours, {backend}"] = ours(num_tags, backend)
    torch.manual_seed(0)
    parameters = CRF(num_tags).state_dict()
    for contender in found.values():
        if contender is not None:
            contender.module.load_state_dict(parameters, strict=False)  # EDS-NLP's has a table of forbidden transitions
            contender.module.to(device)
    return found


def ours(num_tags: int, backend: str) -> Contender:
    crf = CRF(num_tags, batch_first=True)
    return Contender(
        crf,
        lambda batch: crf(batch.emissions, batch.tags, batch.mask),
        lambda batch: crf.decode(batch.emissions, batch.mask),
        backend,
    )


def train(contender: Contender, batch: Batch) -> None:
    batch.emissions.grad = None
    contender.module.zero_grad(set_to_none=True)
    with use_backend(contender.backend) if contender.backend else contextlib.nullcontext():
        (-contender.llh(batch)).backward()


@torch.no_grad()
def search(contender: Contender, batch: Batch) -> None:
    with use_backend(contender.backend) if contender.backend else contextlib.nullcontext():
        contender.decode(batch)


def exact_gradient(crf: CRF, batch: Batch) -> Tensor:
    """The gradient of the negative log-likelihood with respect to the emissions, in float64 log space: (B, W, C)."""
    with torch.no_grad():
        chains = crf._chains(batch.emissions, batch.mask)
        lattice = lattice_of(chains, torch.float64)
        alpha, beta = log_forward(lattice), log_backward(lattice)  # (B, W, C)
        marginals = (alpha + beta - log_partition(lattice, alpha)[:, None, None]).exp()
        chosen = nn.functional.one_hot(batch.tags, crf.num_tags)
        return torch.where(batch.mask[:, :, None], marginals - chosen, 0)


def seconds(work: Work, contender: Contender, batch: Batch, repeats: int) -> float:
    """The mean time of a call over `repeats` calls, after a warm-up call."""
    work(contender, batch)
    begin = time.perf_counter()
    for _ in range(repeats):
        work(contender, batch)
    if batch.emissions.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / repeats


def peak_memory(contender: Contender, batch: Batch) -> float:
    """Peak memory of the tensors of a training step, in MiB, without its inputs."""
    if batch.emissions.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train(contender, batch)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    batch.emissions.grad = None
    contender.module.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        train(contender, batch)
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(max(itertools.accumulate(changes))) / 2**20


def compare(shape: tuple[int, int, int], rounds: int, device: torch.device) -> None:
    """Print a table of all contenders at one shape."""
    B, W, C = shape
    batch = Batch.ragged(B, W, C, device)
    words = int(batch.mask.sum())
    print(f"\n(B, W, C) = {shape}, {words} words")
    print("| layer | step | ratio | decode | ratio | error | peak | arithmetic | traffic |")
    print("|---|---|---|---|---|---|---|---|---|")
    field: dict[str, Contender] = {}
    errors: dict[str, float] = {}
    peaks: dict[str, float] = {}
    repeats: dict[str, int] = {}
    for name, contender in contenders(C, device).items():
        if contender is None:
            print(f"| {name} | not installed | | | | | | | |")
            continue
        twin = CRF(C, batch_first=True).to(device)
        twin.load_state_dict(contender.module.state_dict(), strict=False)
        exact = exact_gradient(twin, batch)
        try:
            train(contender, batch)
        except MemoryError as error:
            print(f"| {name} | {error} | | | | | | | |")
            continue
        assert batch.emissions.grad is not None
        errors[name] = (batch.emissions.grad - exact).abs().max().item()
        # A measurement takes at least 30 ms.
        repeats[name] = max(1, int(0.03 / seconds(train, contender, batch, 1)))
        peaks[name] = peak_memory(contender, batch)
        field[name] = contender
    times: dict[tuple[str, Work], list[float]] = {(name, work): [] for name in field for work in (train, search)}
    for _ in range(rounds):
        for name, work in times:
            times[name, work].append(seconds(work, field[name], batch, repeats[name]))
    first = next(iter(field))
    for name in field:
        step, decode = (statistics.median(times[name, work]) for work in (train, search))
        ratios = [statistics.median(times[first, w]) / statistics.median(times[name, w]) for w in (train, search)]
        # Forward, backward and pairwise sums: a multiplication and an addition for each pair of tags and word. Forward
        # variables and emissions are written or read twice, the gradient once, four bytes each.
        flops, traffic = 6 * words * C * C / step, 20 * words * C / step
        print(
            f"| {name} | {step * 1e3:.3f} ms | {ratios[0]:.1f}x | {decode * 1e3:.3f} ms | {ratios[1]:.1f}x "
            f"| {errors[name]:.0e} | {peaks[name]:.1f} MiB "
            f"| {flops / 1e9:.2f} GFLOP/s | {traffic / 1e9:.2f} GB/s |",
            flush=True,
        )


class Tagger(nn.Module):
    """An encoder with a softmax or a CRF on top."""

    def __init__(self, num_tags: int, crf: bool, width: int, layers: int) -> None:
        super().__init__()
        heads = width // 64
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.classifier = nn.Linear(width, num_tags)
        self.crf = CRF(num_tags, batch_first=True) if crf else None

    def forward(self, states: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        emissions = self.classifier(self.encoder(states, src_key_padding_mask=~mask))  # (B, W, C)
        if self.crf is None:
            return nn.functional.cross_entropy(emissions[mask].float(), tags[mask])
        return -self.crf(emissions, tags, mask, reduction="token_mean")


def encoder_step(rounds: int, device: torch.device) -> None:
    """Compare a training step of an encoder with a CRF and with softmax."""
    B, W, C = 32, 128, 9
    width, layers = (768, 12) if device.type == "cuda" else (256, 4)
    batch = Batch.ragged(B, W, C, device)
    states = torch.randn(B, W, width, device=device)
    taggers = {crf: Tagger(C, crf, width, layers).to(device) for crf in (False, True)}
    optimizers = {crf: torch.optim.AdamW(tagger.parameters(), 1e-5) for crf, tagger in taggers.items()}

    def step(crf: bool) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = taggers[crf](states, batch.tags, batch.mask)
        loss.backward()
        optimizers[crf].step()
        optimizers[crf].zero_grad(set_to_none=True)

    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds + 2):
        for crf in (False, True):
            begin = time.perf_counter()
            step(crf)
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken = time.perf_counter() - begin
            if turn >= 2:
                times[crf].append(taken)
    softmax, crf_time = (statistics.median(times[crf]) for crf in (False, True))
    print(f"\nencoder of {layers} layers, {width} wide, (B, W, C) = {(B, W, C)}, forward, backward, AdamW")
    print(f"softmax {softmax * 1e3:.2f} ms, CRF {crf_time * 1e3:.2f} ms, ratio {crf_time / softmax:.3f}")


def machine(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {threads} threads"


def versions() -> str:
    found = []
    for name in ("torch", "triton", "numpy", "pytorch-crf", "pyt-crf", "edsnlp", "torch-struct"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=4, help="number of torch threads on a CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--encoder", action="store_true", help="measure the training step of an encoder instead")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message=".*does not define `arg_constraints`")  # torch-struct
    print(f"{machine(device, args.threads)}; Python {platform.python_version()}; {versions()}")
    if args.encoder:
        encoder_step(args.rounds, device)
        return
    for shape in args.shape or SHAPES:
        compare(shape, args.rounds, device)


if __name__ == "__main__":
    main()
