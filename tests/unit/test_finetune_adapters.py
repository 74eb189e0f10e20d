"""Adapters: our LoRA layer is PEFT's, what is written can be published and merged, and the loss needs few logits."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from tests.finetune_kit import make_records
from tests.vlm_kit import student
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.lora_layer import LoraLinear
from trainer.finetune.loss import answer_loss
from trainer.finetune.prepared import Prepared
from trainer.finetune.training import train
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.store import Store
from world2vlm.vlm import StudentModel


def adapted(custom: bool) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10, bias=False), nn.Tanh(), nn.Linear(10, 3))
    config = LoraConfig(r=2, lora_alpha=5, target_modules=["0", "2"], init_lora_weights=False)
    if custom:
        config._register_custom_module({nn.Linear: LoraLinear})
    return get_peft_model(model, config)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(7, 6), (2, 5, 6)])
def test_our_lora_layer_computes_what_pefts_does(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    found = []
    for custom in (False, True):
        model = adapted(custom)
        output = model(inputs)
        (given,) = torch.autograd.grad(output.square().sum(), inputs, retain_graph=True)
        output.square().sum().backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        found.append((output.detach(), given, gradients))
    (plain, plain_given, plain_gradients), (ours, ours_given, ours_gradients) = found
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(ours_given, plain_given)
    assert set(ours_gradients) == set(plain_gradients) and len(plain_gradients) == 4
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(ours_gradients[name], gradient)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapter_is_published_and_merged_into_its_parent(tmp_path: Path, method: str) -> None:
    student().save(tmp_path / "base")
    records = make_records(tmp_path / "images")
    config = FinetuneConfig(
        str(tmp_path / "base"), method=method, rank=4, alpha=8, learning_rate=1e-2, steps=4, dtype="float32"
    )  # type: ignore[arg-type]
    train(config, records, tmp_path / "images", tmp_path / "adapter")
    registry = Registry(Store(str(tmp_path / "store")), "student")
    full = {"dataset_digest": "", "recipe": "", "metrics": {}}
    parent = registry.publish(tmp_path / "base", parent=None, kind="full", key="base", **full)  # type: ignore[arg-type]
    child = registry.publish(tmp_path / "adapter", parent=parent.version, kind="lora", key="child", **full)  # type: ignore[arg-type]
    with whole(registry, child.version) as folder:
        before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "base", folder))
        StudentModel.load(folder)
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all("language_model" in name for name in changed)


def test_the_loss_is_plain_cross_entropy_and_never_has_all_logits() -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(8, 50), torch.randn(23, 8, requires_grad=True)
    targets, weights = torch.randint(50, (23,)), torch.rand(23)
    rows: list[int] = []
    head.register_forward_hook(lambda _module, _inputs, output: rows.append(len(output)))
    loss = answer_loss(head, hidden, targets, weights, 5)
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert max(rows) <= 5
    plain = (F.cross_entropy(head(hidden), targets, reduction="none") * weights).sum()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, hidden)[0])


def test_broken_prepared_files_are_made_again(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path)
    made: list[int] = []

    def make() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        made.append(1)
        return {"ids": torch.arange(3)}, {"text": "so"}

    for _ in range(2):
        tensors, texts = prepared.get("abcdef", make)
        assert tensors["ids"].tolist() == [0, 1, 2] and texts["text"] == "so"
    assert len(made) == 1
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    assert prepared.get("abcdef", make)[0]["ids"].tolist() == [0, 1, 2]
    assert len(made) == 2 and prepared.get("abcdef", make) and len(made) == 2
