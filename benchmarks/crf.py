"""Compare the CRF layer with other implementations: time, memory and exactness.

    python -m benchmarks.crf                     # training step and decoding, for the shapes in docs/crf.md
    python -m benchmarks.crf --shape 32,128,9    # another shape: B,W,C
    python -m benchmarks.crf --encoder           # training step of an encoder with a CRF and with softmax

Rows are ragged. A training step is what a loop calls: loss, backward, gradients of emissions and parameters. All
implementations take turns within a round, so that whatever else the machine does hits them alike; times are medians
over rounds. The error is the largest deviation of the emissions' gradient (which is a difference of probabilities)
from float64 log space.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchcrf
from torch import Tensor, nn

from models.crf import CRF
from models.crf.backend import use_backend
from models.crf.lattice import lattice_of, log_backward, log_forward, log_partition

SHAPES = [(32, 24, 9), (32, 128, 9), (32, 128, 25), (32, 512, 9), (32, 512, 64)]
STRUCT_LIMIT = 2**24  # B * W * C * C beyond which torch-struct takes tens of gigabytes


@dataclass
class Batch:
    emissions: Tensor  # (B, W, C)
    tags: Tensor  # (B, W)
    mask: Tensor  # (B, W)

    @classmethod
    def ragged(cls, B: int, W: int, C: int, device: torch.device) -> "Batch":
        """Rows of W / 4 to W words, at least one of them with W."""
        torch.manual_seed(0)
        lengths = torch.randint(max(W // 4, 1), W + 1, (B,))
        lengths[0] = W
        mask = torch.arange(W) < lengths[:, None]  # (B, W)
        emissions, tags = 2 * torch.randn(B, W, C), torch.randint(0, C, (B, W))
        return cls(emissions.to(device).requires_grad_(), tags.to(device), mask.to(device))


class TorchStruct(nn.Module):
    """torch-struct's distribution with the parameters of a CRF."""

    def __init__(self, num_tags: int) -> None:
        super().__init__()
        self.start_transitions = nn.Parameter(torch.zeros(num_tags))
        self.end_transitions = nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))

    def _distribution(self, batch: Batch) -> Any:
        from torch_struct import LinearChainCRF

        lengths = batch.mask.sum(1)  # (B,)
        W = batch.mask.size(1)
        last = (torch.arange(W, device=lengths.device) == lengths[:, None] - 1)[:, :, None]  # (B, W, 1)
        unary = batch.emissions + last * self.end_transitions  # (B, W, C)
        # (B, W - 1, C to, C from)
        edges = unary[:, 1:, :, None] + self.transitions.T
        first = (unary[:, 0] + self.start_transitions)[:, None, None, :]  # (B, 1, 1, C)
        edges = torch.cat([edges[:, :1] + first, edges[:, 1:]], 1)
        return LinearChainCRF(edges, lengths=lengths)

    def forward(self, batch: Batch) -> Tensor:
        distribution = self._distribution(batch)
        event = distribution.struct.to_parts(batch.tags, self.transitions.size(0), lengths=batch.mask.sum(1))
        return distribution.log_prob(event.to(batch.emissions.dtype)).sum()

    def decode(self, batch: Batch) -> Any:
        distribution = self._distribution(batch)
        return distribution.struct.from_parts(distribution.argmax)[0].tolist()


@dataclass
class Contender:
    """An implementation: its name, its parameters, the log-likelihood of a batch, and decoding."""

    name: str
    module: nn.Module
    llh: Callable[[Batch], Tensor]
    decode: Callable[[Batch], Any]
    backend: str | None = None

    @contextlib.contextmanager
    def chosen(self) -> Iterator[None]:
        with use_backend(self.backend) if self.backend else contextlib.nullcontext():
            yield

    def train(self, batch: Batch) -> None:
        batch.emissions.grad = None
        self.module.zero_grad(set_to_none=True)
        (-self.llh(batch)).backward()

    @torch.no_grad()
    def search(self, batch: Batch) -> None:
        self.decode(batch)


def _llh(crf: Any, batch: Batch) -> Tensor:
    return crf(batch.emissions, batch.tags, batch.mask)


def _decode(crf: Any, batch: Batch) -> Any:
    return crf.decode(batch.emissions, batch.mask)


def contenders(num_tags: int, device: torch.device) -> list[Contender]:
    """All installed implementations, with the same parameters; pytorch-crf first."""
    peer = torchcrf.CRF(num_tags, batch_first=True).to(device)
    modules: list[tuple[str, nn.Module, str | None]] = [("pytorch-crf", peer, None)]
    if importlib.util.find_spec("torch_struct"):
        modules.append(("torch-struct", TorchStruct(num_tags).to(device), None))
    for ours, kind in (("torch", device.type), ("cpp", "cpu"), ("triton", "cuda")):
        if kind == device.type:
            modules.append((f"ours, {ours}", CRF(num_tags, batch_first=True).to(device), ours))
    result = []
    for name, module, backend in modules:
        module.load_state_dict(peer.state_dict())
        if isinstance(module, TorchStruct):
            result.append(Contender(name, module, module.forward, module.decode))
        else:
            result.append(
                Contender(name, module, functools.partial(_llh, module), functools.partial(_decode, module), backend)
            )
    return result


def exact_gradient(crf: CRF, batch: Batch) -> Tensor:
    """The gradient of the negative log-likelihood with respect to the emissions, in float64 log space: (B, W, C)."""
    with torch.no_grad():
        chains = crf._chains(batch.emissions, batch.mask)
        lattice = lattice_of(chains, torch.float64)
        alpha, beta = log_forward(lattice), log_backward(lattice)  # (B, W, C)
        marginals = (alpha + beta - log_partition(lattice, alpha)[:, None, None]).exp()
        chosen = nn.functional.one_hot(batch.tags, crf.num_tags)
        return torch.where(batch.mask[:, :, None], marginals - chosen, 0)


def seconds(work: Callable[[Batch], None], batch: Batch, repeats: int) -> float:
    """The mean time of a call over `repeats` calls, after a warm-up call."""
    work(batch)
    begin = time.perf_counter()
    for _ in range(repeats):
        work(batch)
    if batch.emissions.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / repeats


def peak_memory(contender: Contender, batch: Batch) -> float:
    """Peak memory of the tensors of a training step, in MiB, without its inputs."""
    if batch.emissions.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contender.train(batch)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    batch.emissions.grad = None
    contender.module.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        contender.train(batch)
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(max(itertools.accumulate(changes))) / 2**20


def compare(shape: tuple[int, int, int], rounds: int, device: torch.device) -> None:
    """Print a table of all contenders at one shape."""
    B, W, C = shape
    batch = Batch.ragged(B, W, C, device)
    field = contenders(C, device)
    if B * W * C * C > STRUCT_LIMIT:
        field = [contender for contender in field if contender.name != "torch-struct"]
    errors: dict[str, float] = {}
    peaks: dict[str, float] = {}
    repeats: dict[str, int] = {}
    times: dict[tuple[str, str], list[float]] = {(c.name, kind): [] for c in field for kind in ("train", "decode")}
    for contender in field:
        twin = CRF(C, batch_first=True).to(device)
        twin.load_state_dict(contender.module.state_dict())
        exact = exact_gradient(twin, batch)
        with contender.chosen():
            contender.train(batch)
            contender.search(batch)
            assert batch.emissions.grad is not None
            errors[contender.name] = (batch.emissions.grad - exact).abs().max().item()
            # A measurement takes at least 30 ms.
            repeats[contender.name] = max(1, int(0.03 / seconds(contender.train, batch, 1)))
            peaks[contender.name] = peak_memory(contender, batch)
    for _ in range(rounds):
        for contender in field:
            for kind, work in (("train", contender.train), ("decode", contender.search)):
                with contender.chosen():
                    times[contender.name, kind].append(seconds(work, batch, repeats[contender.name]))
    words = int(batch.mask.sum())
    print(f"\n(B, W, C) = {shape}, {words} words")
    print("| layer | step | ratio | decode | ratio | error | peak | arithmetic | traffic |")
    print("|---|---|---|---|---|---|---|---|---|")
    peer = field[0].name
    for contender in field:
        name = contender.name
        step, search = (statistics.median(times[name, kind]) for kind in ("train", "decode"))
        ratios = [statistics.median(times[peer, k]) / statistics.median(times[name, k]) for k in ("train", "decode")]
        # Forward, backward and pairwise sums: a multiplication and an addition for each pair of tags and word. Forward
        # variables and emissions are written or read twice, the gradient once, four bytes each.
        flops, traffic = 6 * words * C * C / step, 20 * words * C / step
        print(
            f"| {name} | {step * 1e3:.3f} ms | {ratios[0]:.0f}x | {search * 1e3:.3f} ms | {ratios[1]:.0f}x "
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


def versions() -> dict[str, str]:
    names = ["torch", "triton", "torchcrf", "torch_struct", "numpy"]
    return {n: getattr(__import__(n), "__version__", "?") for n in names if importlib.util.find_spec(n)}


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
