"""Second derivatives, differentiable marginals and entropy, and weights of tags."""

import pytest
import torch
from torch import Tensor

from models.crf import CRF
from tests.models.crf.enumeration import Problem
from tests.models.crf.problems import layer

C = 4
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()


@pytest.fixture(params=[False, True], ids=["all", "legal"])
def crf(request: pytest.FixtureRequest) -> CRF:
    torch.manual_seed(0)
    legal = torch.rand(C + 2, C + 2) < 0.8
    legal[0] = legal[:, 0] = legal[C] = legal[:, C + 1] = True
    return CRF(C, batch_first=True, legal=legal if request.param else None).double()


@pytest.fixture
def emissions() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*MASK.shape, C, dtype=torch.float64, requires_grad=True)


TAGS = torch.zeros(MASK.shape, dtype=torch.long)


@pytest.mark.parametrize("reduction", ["none", "sum", "token_mean"])
def test_the_likelihood_has_second_derivatives(crf: CRF, emissions: Tensor, reduction: str) -> None:
    inputs = (emissions, *crf.parameters())
    assert torch.autograd.gradgradcheck(lambda *given: crf(given[0], TAGS, MASK, reduction=reduction), inputs)
    assert torch.autograd.gradgradcheck(lambda *given: crf.log_partition(given[0], MASK), inputs)


def test_marginals_and_entropy_are_differentiable_if_asked(crf: CRF, emissions: Tensor) -> None:
    def asked(emissions: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        both = crf.marginals(emissions, MASK, pairwise=True, differentiable=True)
        return *both, crf.entropy(emissions, MASK, differentiable=True)

    inputs = (emissions, *crf.parameters())
    assert torch.autograd.gradcheck(asked, inputs)
    usual = (*crf.marginals(emissions, MASK, pairwise=True), crf.entropy(emissions, MASK))
    torch.testing.assert_close(asked(*inputs), usual, check_dtype=False)
    torch.testing.assert_close(crf.marginals(emissions, MASK, differentiable=True), asked(*inputs)[0])


def test_a_regularised_loss_in_single_precision_with_words_first() -> None:
    crf = CRF(C)
    emissions = torch.randn(5, 3, C, requires_grad=True)
    tags, mask = TAGS.T, MASK.T
    loss = -crf(emissions, tags, mask) - 0.1 * crf.entropy(emissions, mask, differentiable=True).sum()
    loss.backward()
    assert emissions.grad is not None
    assert emissions.grad.dtype == torch.float32
    assert emissions.grad.isfinite().all()
    assert crf.transitions.grad is not None
    assert crf.transitions.grad.any()


def test_weights_of_one_change_nothing(crf: CRF, emissions: Tensor) -> None:
    for tags in (TAGS, torch.full_like(TAGS, 3)):
        weighted = crf(emissions, tags, MASK, reduction="none", weight=torch.ones(C))
        torch.testing.assert_close(weighted, crf(emissions, tags, MASK, reduction="none"))


def test_weights_apply_to_each_word_given_those_before() -> None:
    torch.manual_seed(0)
    everything = torch.ones(1, 3, 3, dtype=torch.bool)
    problem = Problem(
        emissions=torch.randn(1, 3, 3).double(),
        start=torch.randn(3).double(),
        end=torch.randn(3).double(),
        transitions=torch.randn(3, 3).double(),
        mask=everything[:, :, 0],
        legal=torch.ones(5, 5, dtype=torch.bool),
        allowed=everything,
        tags=torch.tensor([[2, 0, 1]]),
    )
    weight = torch.tensor([0.5, 2.0, 1.0])
    tags = (2, 0, 1)
    paths = {path: torch.tensor(score).exp() for path, score in problem.paths(0).items()}

    def mass(begin: tuple[int, ...]) -> Tensor:
        return sum((share for path, share in paths.items() if path[: len(begin)] == begin), torch.tensor(0.0))

    expected = sum(weight[tags[k]] * (mass(tags[: k + 1]) / mass(tags[:k])).log() for k in range(3))
    crf = layer(problem, torch.float64)
    found = crf(problem.emissions, problem.tags, problem.mask, weight=weight)
    assert found.item() == pytest.approx(float(expected), abs=1e-5)


def test_weights_are_checked(crf: CRF, emissions: Tensor) -> None:
    with pytest.raises(ValueError, match=r"weight must have shape \(4,\) and needs tags, got \(3,\)"):
        crf(emissions, TAGS, MASK, weight=torch.ones(3))
    with pytest.raises(ValueError, match="needs tags"):
        crf(emissions, None, MASK, allowed=torch.ones_like(emissions, dtype=torch.bool), weight=torch.ones(C))
    wrong = TAGS.clone()
    wrong[1, 2] = C
    with pytest.raises(ValueError, match="a tag that does not exist in row 1 of the batch"):
        crf(emissions, wrong, MASK, weight=torch.ones(C))
    blocked = emissions.detach().clone()
    blocked[0, 3] = -torch.inf
    with pytest.raises(ValueError, match="no legal path of finite score in row 0 of the batch"):
        crf(blocked, TAGS, MASK, weight=torch.ones(C))
