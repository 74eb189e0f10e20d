"""The optimisers: the schedule by hand, what Muon takes and what not, and a state that comes back exactly."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.vlm_kit import student
from trainer.optim import StudentOptimizer
from trainer.optim_config import OptimConfig

CONFIG = OptimConfig(muon_lr=0.02, adam_lr=0.01, warmup=4, cooldown=0.5, final=0.1)


class Net(nn.Module):
    """A layer's matrix, an embedding, a bias, and a head that shares the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(6, 4)
        self.layer = nn.Linear(4, 4)
        self.lm_head = nn.Linear(4, 6, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.lm_head(torch.tanh(self.layer(self.embed(tokens))))


def loss(net: nn.Module, step: int = 0) -> torch.Tensor:
    tokens = torch.tensor([(step + offset) % 6 for offset in range(4)])
    return nn.functional.cross_entropy(net(tokens), (tokens + 1) % 6)


def train(net: nn.Module, optimizer: StudentOptimizer, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.step(loss(net, step))


def weights(net: nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in net.parameters()]


def test_the_schedule_warms_up_stays_and_cools_down() -> None:
    net = Net()
    optimizer = StudentOptimizer([net], CONFIG, steps=20)
    factors = []
    for step in range(20):
        factors.append(optimizer.factor)
        optimizer.step(loss(net, step))
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors[5:11] == pytest.approx([1.0] * 6)
    assert factors[11:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_it_never_falls_below_its_floor() -> None:
    net = Net()
    optimizer = StudentOptimizer([net], replace(CONFIG, final=0.3), steps=10)
    train(net, optimizer, 0, 10)
    assert optimizer.factor == 0.3


def test_the_schedule_reaches_the_optimisers() -> None:
    net = Net()
    before = net.layer.weight.detach().clone()
    optimizer = StudentOptimizer([net], replace(CONFIG, warmup=1000, weight_decay=0.0), steps=2000)
    optimizer.step(loss(net))
    small = (net.layer.weight.detach() - before).norm()
    net = Net()
    StudentOptimizer([net], replace(CONFIG, warmup=1, weight_decay=0.0), steps=2000).step(loss(net))
    # Muon's update has a size of its own: it scales with the rate alone.
    assert float((net.layer.weight.detach() - before).norm() / small) == pytest.approx(1000, rel=1e-3)


def test_muon_takes_the_layers_matrices_and_nothing_else() -> None:
    model = student().model
    state = StudentOptimizer([model], CONFIG, steps=10)
    inputs = torch.randint(0, 100, (1, 5))
    state.step(model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits.square().mean())
    keys = state.state_tensors()
    momenta = [value for name, value in keys.items() if name.startswith("1.") and name.endswith("momentum_buffer")]
    adam = [value for name, value in keys.items() if name.startswith("0.") and name.endswith("exp_avg")]
    assert momenta and all(value.ndim == 2 for value in momenta)
    # The text tower's layers have seven matrices each; the embedding is AdamW's.
    assert len(momenta) == 2 * 7
    assert model.lm_head.weight.shape in [value.shape for value in adam]
    assert model.lm_head.weight.shape not in [value.shape for value in momenta]


def test_the_pretraining_head_is_not_muons() -> None:
    head = nn.Module()
    head.auxiliary = nn.Linear(3, 2)
    optimizer = StudentOptimizer([Net(), head], CONFIG, steps=5)
    optimizer.step(head.auxiliary(torch.ones(1, 3)).sum())
    assert not [name for name in optimizer.state_tensors() if name.startswith("1.")]


def test_gradients_are_forgotten_after_a_step() -> None:
    net = Net()
    optimizer = StudentOptimizer([net], CONFIG, steps=5)
    optimizer.step(loss(net))
    assert all(weight.grad is None for weight in net.parameters())


def test_training_lowers_the_loss() -> None:
    net = Net()
    before = loss(net).item()
    train(net, StudentOptimizer([net], CONFIG, steps=120), 0, 120)
    assert loss(net).item() < before / 4


@pytest.mark.parametrize("stop", [1, 5])
def test_a_state_that_was_saved_continues_to_the_same_weights(stop: int) -> None:
    whole = Net()
    train(whole, StudentOptimizer([whole], CONFIG, steps=12), 0, 12)
    net = Net()
    optimizer = StudentOptimizer([net], CONFIG, steps=12)
    train(net, optimizer, 0, stop)
    state = {name: value.clone() for name, value in optimizer.state_tensors().items()}
    continued = StudentOptimizer([net], CONFIG, steps=12)
    continued.load_state_tensors(state, stop)
    train(net, continued, stop, 12)
    assert all(torch.equal(a, b) for a, b in zip(weights(net), weights(whole), strict=True))


def test_without_its_state_it_would_go_elsewhere() -> None:
    whole, net = Net(), Net()
    train(whole, StudentOptimizer([whole], CONFIG, steps=12), 0, 12)
    train(net, StudentOptimizer([net], CONFIG, steps=12), 0, 5)
    train(net, StudentOptimizer([net], CONFIG, steps=12), 5, 12)
    assert not torch.equal(net.layer.weight, whole.layer.weight)
