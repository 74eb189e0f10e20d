"""Muon: its steps are those of torch's own, to bfloat16's precision, and what it makes orthogonal is so."""

import pytest
import torch

from trainer.muon import Muon, orthogonalised

SHAPES = [(16, 48), (48, 16), (32, 32)]


def matrices(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_its_steps_are_those_of_torch_s_own() -> None:
    ours, theirs = ([torch.nn.Parameter(each) for each in matrices(0)] for _ in range(2))
    options = {"lr": 0.5, "weight_decay": 0.1, "momentum": 0.9}
    sides = [(ours, Muon(ours, **options)), (theirs, torch.optim.Muon(theirs, **options))]
    for step in range(5):
        for parameters, optimizer in sides:
            for parameter, gradient in zip(parameters, matrices(step + 1), strict=True):
                parameter.grad = gradient
            optimizer.step()
    for before, one, other in zip(matrices(0), ours, theirs, strict=True):
        moved = (other - before).norm()
        assert moved > 0.1 * before.norm()
        assert (one - other).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one_and_the_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ orthogonalised(matrix) @ right.T
    clear = values > 0.1 * values.max()
    found = turned.diagonal()
    assert ((found[clear] > 0.6) & (found[clear] < 1.3)).all()
    assert (turned - torch.diag(found)).abs().max() < 1e-4


def test_the_scale_of_a_gradient_changes_nothing_and_a_zero_is_no_number_less() -> None:
    matrix = matrices(0)[0]
    assert torch.allclose(orthogonalised(1e-4 * matrix), orthogonalised(matrix), atol=1e-4)
    assert torch.equal(orthogonalised(torch.zeros(4, 6)), torch.zeros(4, 6))


def test_a_matrix_without_a_gradient_stays_as_it_is() -> None:
    still = torch.nn.Parameter(matrices(0)[0])
    Muon([still], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(still, matrices(0)[0])
