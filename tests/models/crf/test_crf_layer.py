"""The layer as a module: legal transitions, errors, devices, compilers, and what it imports."""

import copy
import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from common import tag_schemes
from common.tag_schemes import MARKUPS
from models.crf import CRF, legal_transitions
from models.crf.backend import use_backend
from tests.models.crf.operators import check_operators
from tests.models.crf.problems import BACKENDS


def bio(types: int) -> torch.Tensor:
    """Legal transitions of the scheme BIO: O is tag 0, B-k is 2 k + 1, I-k is 2 k + 2."""
    C = 2 * types + 1
    legal = torch.ones(C + 2, C + 2, dtype=torch.bool)
    for inside in range(2, C, 2):
        legal[:, inside] = False
        legal[[inside - 1, inside], inside] = True
    return legal


@pytest.mark.parametrize("backend", BACKENDS)
def test_illegal_paths_are_impossible(backend: str) -> None:
    torch.manual_seed(0)
    crf = CRF(5, batch_first=True, legal=bio(2))
    emissions = torch.randn(8, 12, 5) * 3
    emissions[:, :, 2] += 500  # the emissions want nothing but I-0
    tags = torch.zeros(8, 12, dtype=torch.long)
    tags[3, 4] = 2
    with use_backend(backend):
        llh = crf(emissions.requires_grad_(), tags, reduction="none")
        assert llh.isneginf().nonzero().flatten().tolist() == [3]
        llh.sum().backward()
        assert emissions.grad is not None
        assert not emissions.grad[3].any()
        assert emissions.grad.isfinite().all()
        legal = bio(2)
        illegal = ~legal[:5, :5]
        assert crf.transitions.grad is not None
        assert not crf.transitions.grad[illegal].any()
        for path in crf.decode(emissions):
            assert legal[5, path[0]]
            assert all(legal[i, j] for i, j in itertools.pairwise(path))
        crf.set_legal(None)
        assert crf(emissions, tags, reduction="none").isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_legal_path_are_named(backend: str) -> None:
    legal = bio(1)
    legal[0, 0] = False
    crf = CRF(3, batch_first=True, legal=legal)
    emissions = torch.zeros(4, 3, 3)
    emissions[1, 1, 1:] = emissions[3, 2, :] = -torch.inf
    emissions[1, 0, 1:] = -torch.inf
    tags = torch.ones(4, 3, dtype=torch.long)
    span, inside = torch.tensor([[0, 1, 1]]), torch.ones(1, 1, 3, dtype=torch.bool)
    with use_backend(backend):
        for call in (
            lambda: crf(emissions, tags),
            lambda: crf.decode(emissions),
            lambda: crf.decode(emissions, nbest=2),
            lambda: crf.marginals(emissions),
            lambda: crf.marginals(emissions, pairwise=True),
            lambda: crf.entropy(emissions),
            lambda: crf.sample(emissions),
            lambda: crf.span_confidence(emissions, None, span, inside),
        ):
            with pytest.raises(ValueError, match="no legal path of finite score in rows 1, 3 of the batch"):
                call()
        tags[2, 1] = 7
        with pytest.raises(ValueError, match="a tag that does not exist in row 2"):
            crf(torch.zeros(4, 3, 3), tags)


def test_arguments_are_checked() -> None:
    crf = CRF(3, batch_first=True)
    with pytest.raises(ValueError, match=r"legal must be a bool tensor of shape \(5, 5\), got torch.bool of \(3, 3\)"):
        crf.set_legal(torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got torch.float32"):
        CRF(3, legal=torch.ones(5, 5))
    emissions, tags = torch.zeros(2, 4, 3), torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="either tags or allowed"):
        crf(emissions)
    with pytest.raises(ValueError, match="either tags or allowed"):
        crf(emissions, tags, allowed=torch.ones(2, 4, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="allowed must be a bool tensor"):
        crf(emissions, allowed=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="nbest must be positive, got 0"):
        crf.decode(emissions, nbest=0)
    inside = torch.ones(1, 2, 3, dtype=torch.bool)
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]])
    for span in ([0, 1, 2], [0, 0, 3], [1, 2, 1]):
        with pytest.raises(ValueError, match="a span begins or ends at a masked word, or has not 1 to 2 words"):
            crf.span_confidence(emissions, mask, torch.tensor([span]), inside)
    with pytest.raises(ValueError, match="spans must lie in a batch of 2 rows of 4 words"):
        crf.span_confidence(emissions, mask, torch.tensor([[2, 0, 0]]), inside)
    with pytest.raises(ValueError, match=r"spans must have shape \(1, 3\)"):
        crf.span_confidence(emissions, mask, torch.tensor([[0, 0]]), inside)


def test_allowed_comes_in_the_order_of_emissions() -> None:
    torch.manual_seed(0)
    rows_first, words_first = CRF(3, batch_first=True), CRF(3)
    words_first.load_state_dict(rows_first.state_dict())
    emissions, allowed = torch.randn(2, 5, 3), torch.rand(2, 5, 3) < 0.5
    allowed[:, :, 0] = True
    turned = [tensor.transpose(0, 1) for tensor in (emissions, allowed)]
    for ask in (CRF.forward, CRF.log_partition, CRF.decode, CRF.entropy):
        expected, found = ask(rows_first, emissions, allowed=allowed), ask(words_first, turned[0], allowed=turned[1])
        torch.testing.assert_close(found, expected)
    unary = words_first.marginals(turned[0], allowed=turned[1])
    assert isinstance(unary, torch.Tensor)
    torch.testing.assert_close(unary.transpose(0, 1), rows_first.marginals(emissions, allowed=allowed))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("factor", [-1.0, 1.0, -0.25, 0.0])
def test_the_gradient_of_a_sum_is_that_of_its_rows_each_time(backend: str, factor: float) -> None:
    """Also the second time through a retained graph, and when gradients accumulate in place."""
    torch.manual_seed(0)
    crf = CRF(4, batch_first=True)
    emissions, tags = torch.randn(3, 6, 4, requires_grad=True), torch.randint(0, 4, (3, 6))
    inputs = [emissions, *crf.parameters()]
    with use_backend(backend):
        expected = torch.autograd.grad(factor * crf(emissions, tags, reduction="none").sum(), inputs)
        scaled = factor * crf(emissions, tags)
        for times in (1, 2, 3):
            scaled.backward(retain_graph=times < 3)
            torch.testing.assert_close([tensor.grad for tensor in inputs], [times * grad for grad in expected])
        with pytest.raises(RuntimeError, match="second time"):
            scaled.backward()


class Symmetric(nn.Module):
    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        return matrix + matrix.T


def test_transitions_may_be_computed_from_other_parameters() -> None:
    torch.manual_seed(0)
    crf, plain = CRF(3, batch_first=True), CRF(3, batch_first=True)
    plain.load_state_dict(crf.state_dict())
    plain.transitions.data = crf.transitions.data + crf.transitions.data.T
    nn.utils.parametrize.register_parametrization(crf, "transitions", Symmetric())
    emissions, tags = torch.randn(2, 5, 3), torch.randint(0, 3, (2, 5))
    values = crf(emissions, tags), plain(emissions, tags)
    torch.testing.assert_close(*values)
    for value in values:
        value.backward()
    assert plain.transitions.grad is not None
    gradient = crf.parametrizations.transitions.original.grad
    torch.testing.assert_close(gradient, plain.transitions.grad + plain.transitions.grad.T)
    assert crf.decode(emissions) == plain.decode(emissions)


def test_legal_survives_the_meta_device() -> None:
    """Hugging Face transformers builds on the meta device, where tensors have no values, and loads afterwards."""
    legal = bio(1)
    emissions, tags = torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.long)
    expected = CRF(3, batch_first=True, legal=legal)
    for prepare in ("before", "again"):
        with torch.device("meta"):
            made_there = prepare == "again"
            crf = CRF(3, batch_first=True, legal=torch.empty(5, 5, dtype=torch.bool) if made_there else legal)
        crf.to_empty(device="cpu")
        crf.load_state_dict(expected.state_dict())
        if made_there:
            with pytest.raises(RuntimeError, match="call set_legal again"):
                crf(emissions, tags)
            crf.set_legal(legal)
        torch.testing.assert_close(crf(emissions, tags), expected(emissions, tags))
        kept = copy.deepcopy(crf).legal
        assert kept is not None
        assert torch.equal(kept, legal)


@pytest.mark.parametrize("assign", [False, True])
def test_legal_comes_back_from_the_meta_device(assign: bool) -> None:
    emissions, tags = torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.long)
    expected = CRF(3, batch_first=True, legal=bio(1))
    crf = copy.deepcopy(expected).to("meta")
    if not assign:
        crf.to_empty(device="cpu")
    crf.load_state_dict(expected.state_dict(), assign=assign)
    torch.testing.assert_close(crf(emissions, tags), expected(emissions, tags))


class Tagger(nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.classifier = nn.Linear(6, 5)
        self.crf = CRF(5, batch_first=True, legal=bio(2))

    def forward(self, states: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        llh: torch.Tensor = self.crf(self.classifier(states), tags, mask, reduction="token_mean")
        return -llh


@pytest.mark.parametrize("backend", BACKENDS)
def test_compile_without_graph_break(backend: str) -> None:
    torch.manual_seed(0)
    model = Tagger(backend)
    tags, mask = torch.zeros(3, 7, dtype=torch.long), torch.arange(7) < torch.tensor([[7], [3], [5]])
    states = torch.randn(3, 7, 6)
    results = []
    with use_backend(backend):
        for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
            model.zero_grad()
            loss = forward(states, tags, mask)
            loss.backward()
            results.append([loss.detach(), *[parameter.grad for parameter in model.parameters()]])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_custom_operators_are_registered_correctly(backend: str) -> None:
    torch.manual_seed(0)
    check_operators(backend, torch.device("cpu"))


def test_nothing_is_compiled_before_it_is_needed() -> None:
    program = (
        "import sys, torch, models.crf as m; crf = m.CRF(3); assert 'models.crf.cpu' not in sys.modules; "
        "crf(torch.zeros(2, 1, 3), torch.zeros(2, 1).long()); assert 'models.crf.cpu' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("missing", ["models.crf.cpu", "triton"])
def test_computes_without_the_compiled_backends(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import torch, models.crf as m\n"
        "print(m.CRF(3).log_partition(torch.zeros(2, 1, 3)).isfinite().all().item())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"


def test_lists_hold_tags_of_any_number() -> None:
    crf = CRF(400, batch_first=True)
    tags = torch.tensor([[399, 0, 256], [255, 130, 0]])
    emissions = 1e3 * nn.functional.one_hot(tags, 400).float()
    assert crf.decode(emissions, torch.tensor([[1, 1, 1], [1, 1, 0]])) == [[399, 0, 256], [255, 130]]
    small = CRF(256, batch_first=True)
    assert small.decode(emissions[1:, :, :256], torch.tensor([[1, 1, 0]])) == [[255, 130]]


def test_what_is_on_another_device_is_refused() -> None:
    crf, emissions, tags = CRF(3, batch_first=True), torch.zeros(2, 4, 3), torch.zeros(2, 4, dtype=torch.long)
    mask, allowed = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 4, 3, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="the layer is on cpu, the emissions on meta"):
        crf(emissions.to("meta"), tags)
    with pytest.raises(RuntimeError, match="tags must be on cpu as the emissions are, got meta"):
        crf(emissions, tags.to("meta"))
    with pytest.raises(RuntimeError, match="mask must be on cpu as the emissions are, got meta"):
        crf.decode(emissions, mask.to("meta"))
    with pytest.raises(RuntimeError, match="allowed must be on cpu as the emissions are, got meta"):
        crf(emissions, allowed=allowed.to("meta"))


def test_the_default_device_is_not_asked() -> None:
    torch.manual_seed(0)
    crf, emissions, tags = CRF(3, batch_first=True), torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.long)
    expected = crf(emissions, tags, reduction="none"), crf(emissions, tags), crf.marginals(emissions)
    paths, entropy = crf.decode(emissions), crf.entropy(emissions)
    with torch.device("meta"):
        torch.testing.assert_close(
            (crf(emissions, tags, reduction="none"), crf(emissions, tags), crf.marginals(emissions)), expected
        )
        assert crf.decode(emissions) == paths
        torch.testing.assert_close(crf.entropy(emissions), entropy)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", [float("nan"), float("-inf")])
def test_scores_that_are_not_finite_are_named_as_a_cause(backend: str, score: float) -> None:
    emissions = torch.zeros(2, 4, 3)
    emissions[1, 2] = score
    with use_backend(backend), pytest.raises(ValueError, match="no legal path of finite score in row 1 of the batch"):
        CRF(3, batch_first=True).decode(emissions)


@pytest.mark.parametrize("backend", BACKENDS)
def test_searches_and_marginals_are_compiled_too(backend: str) -> None:
    torch.manual_seed(0)
    crf = CRF(5, batch_first=True)
    batches = [(torch.randn(B, W, 5), torch.arange(W) < torch.tensor([[W], [2]])) for B, W in ((2, 6), (2, 9))]
    with use_backend(backend):
        marginals = torch.compile(crf.marginals, backend="eager", fullgraph=True)
        best_paths = torch.compile(crf.best_paths, backend="aot_eager", fullgraph=True)
        decode = torch.compile(crf.decode, backend="eager")
        for emissions, mask in batches:
            for _ in range(2):
                torch.testing.assert_close(marginals(emissions, mask), crf.marginals(emissions, mask))
                torch.testing.assert_close(best_paths(emissions, mask), crf.best_paths(emissions, mask))
                assert decode(emissions, mask) == crf.decode(emissions, mask)


def test_tensors_without_values_have_shapes() -> None:
    with FakeTensorMode():
        crf, emissions, tags = CRF(3, batch_first=True), torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.long)
        assert crf(emissions, tags).shape == ()
        unary = crf.marginals(emissions)
        assert isinstance(unary, torch.Tensor)
        assert unary.shape == (2, 4, 3)
        assert crf.best_paths(emissions).tags.shape == (2, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_may_overlap_in_memory(backend: str) -> None:
    torch.manual_seed(0)
    overlapping = torch.randn(2, 40).unfold(1, 7, 1)[:, :3]  # (2, 3, 7)
    crf, tags = CRF(7, batch_first=True), torch.randint(0, 7, (2, 3))
    with use_backend(backend):
        gradients = []
        for emissions in (overlapping, overlapping.contiguous()):
            emissions = emissions.detach().requires_grad_()
            gradients.append(torch.autograd.grad(crf(emissions, tags), emissions)[0])
    torch.testing.assert_close(*gradients)


def test_scores_of_a_frozen_encoder_may_come_from_inference_mode() -> None:
    crf, tags = CRF(3, batch_first=True), torch.zeros(2, 4, dtype=torch.long)
    with torch.inference_mode():
        emissions = torch.ones(2, 4, 3)
    crf(emissions, tags).backward()
    assert crf.transitions.grad is not None
    with torch.inference_mode():
        assert crf.decode(emissions)


def test_a_gradient_is_computed_where_its_value_was() -> None:
    torch.manual_seed(0)
    crf, emissions = CRF(20, batch_first=True), torch.randn(2, 5, 20, requires_grad=True)
    gradients = []
    for backend in ("torch", "cpp"):
        with use_backend("torch"):
            value = crf.log_partition(emissions).sum()
        with use_backend(backend):
            gradients.append(torch.autograd.grad(value, emissions)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("markup", ["bio", "bios", "bioes", "bmes", "bilou"])
def test_legal_transitions_follow_from_the_names_of_tags(markup: str) -> None:
    scheme = MARKUPS[markup]
    tags = ["O", *(f"{prefix}-{kind}" for prefix in scheme.prefixes for kind in ("PER", "LOC-part"))]
    assert legal_transitions(tags).tolist() == tag_schemes.legal_transitions(tags, scheme).tolist()


def test_names_that_are_no_tags_have_no_legal_transitions() -> None:
    with pytest.raises(ValueError, match="not tags of a known scheme: PER, X-LOC; expected O"):
        legal_transitions(["O", "PER", "B-PER", "X-LOC"])
