"""Packed rows compute what transformers' own forward passes do, one example at a time: in every family."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoModelForImageTextToText

from tests import finetune_kit
from tests.finetune_kit import MAKERS, make_records
from trainer.finetune.adapting import Loaded, adapt, load
from trainer.finetune.attention import attend_within_windows
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.encoding import Encoder
from trainer.finetune.loss import RowLoss
from trainer.finetune.packing import fill_rows, pack
from trainer.finetune.patches import PatchConvolution, patches_as_products
from world2vlm.records import TaskRecord

WEIGHTS = [1.0, 0.5, 2.0, 1.0, 0.25, 3.0, 0.75]
IGNORE = -100


images = finetune_kit.images


@pytest.fixture(scope="module")
def records(images: Path) -> list[TaskRecord]:
    return make_records(images)


@pytest.fixture(scope="module", params=sorted(MAKERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param](made)
    return made


def settings(folder: Path, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(str(folder), **{"method": "full", "dtype": "float32", **changes})


def plain_inputs(loaded: Loaded, record: TaskRecord, images: Path) -> dict[str, Any]:
    """What transformers' own processor makes of a conversation, with labels on the answer alone."""
    processor = loaded.processor
    pictures = [Image.open(images / name).convert("RGB") for name in record.images]
    user = {"role": "user", "content": [*({"type": "image"} for _ in pictures), _text(record.question)]}
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
    whole = processor.apply_chat_template([user, {"role": "assistant", "content": [_text(record.assistant)]}])
    whole = whole.rstrip() + ("</s>" if "USER:" in whole else "")
    shown = [pictures] if pictures else None
    inputs = dict(processor(text=[whole], images=shown, return_tensors="pt"))
    start = processor(text=[prompt], images=shown, return_tensors="pt")["input_ids"].shape[1]
    # Idefics3's answers begin with a blank that follows the prompt; in LLaVA's it ends the prompt.
    labels = inputs["input_ids"].clone()
    labels[:, :start] = IGNORE
    inputs.pop("rows", None)
    return {**inputs, "labels": labels}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def plain_gradients(
    loaded: Loaded, records: Sequence[TaskRecord], images: Path
) -> tuple[float, dict[str, torch.Tensor]]:
    """The weighted mean over answer tokens, one example after the other, by transformers' own loss."""
    model = AutoModelForImageTextToText.from_pretrained(loaded.model.name_or_path)
    made = [plain_inputs(loaded, record, images) for record in records]
    counts = [int((inputs["labels"] != IGNORE).sum()) for inputs in made]
    total = sum(weight * count for weight, count in zip(WEIGHTS, counts, strict=True))
    value = 0.0
    for inputs, weight, count in zip(made, WEIGHTS, counts, strict=True):
        loss = model(**inputs, use_cache=False).loss * count * weight / total
        loss.backward()
        value += loss.item()
    return value, gradients(model)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def packed_gradients(
    config: FinetuneConfig, loaded: Loaded, records: Sequence[TaskRecord], images: Path, prepared: Path
) -> tuple[float, dict[str, torch.Tensor], int]:
    encoder = Encoder(
        loaded.processor, loaded.model.model, loaded.family, prepared, images, frozen=config.freeze_vision
    )
    entries = [encoder.entry(record) for record in records]
    rows = fill_rows([entry.tokens for entry in entries], config.row_tokens)
    total = sum(weight * entry.answer_tokens for weight, entry in zip(WEIGHTS, entries, strict=True))
    loaded.model.zero_grad()
    module = RowLoss(loaded.model.train(), loaded.family, chunk=7)
    value = 0.0
    for row in rows:
        examples = [encoder.example(entries[index]) for index in row]
        pictures = {key: encoder.picture(key) for example in examples for key in example.images}
        loss = module(pack(examples, [WEIGHTS[index] for index in row], pictures)) / total
        loss.backward()
        value += loss.item()
    return value, gradients(loaded.model), len(rows)


@pytest.mark.parametrize(("row_tokens", "attention"), [(150, None), (1000, None), (150, "sdpa")])
def test_packed_gradients_are_those_of_single_examples(
    folder: Path, records: list[TaskRecord], images: Path, tmp_path: Path, row_tokens: int, attention: str | None
) -> None:
    """All weights, the vision tower's too; in several rows that accumulate, and in one; also with a block mask."""
    config = settings(folder, freeze_vision=False, row_tokens=row_tokens)
    loaded = load(config)
    if attention is not None:
        loaded.model.set_attn_implementation(attention)
    loss, expected = plain_gradients(loaded, records, images)
    value, found, rows = packed_gradients(config, loaded, records, images, tmp_path)
    assert rows == 1 if row_tokens == 1000 else rows > 2
    assert value == pytest.approx(loss, rel=1e-5)
    assert set(found) == set(expected) and any("vis" in name for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_windows_seen_together_give_the_gradients_of_windows_seen_one_by_one(
    folder: Path, records: list[TaskRecord], images: Path
) -> None:
    loaded = load(settings(folder, freeze_vision=False))
    tower = getattr(loaded.model.model, "visual", None)
    if tower is None:
        pytest.skip("its tower has no windows")
    loss, found = plain_gradients(loaded, records, images)
    loaded.model.zero_grad()
    tower.config._attn_implementation = "sdpa"
    expected_loss, expected = plain_gradients(loaded, records, images)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_windows_of_several_sizes_each_look_at_themselves_alone() -> None:
    lengths = (4, 4, 2, 3, 3, 4)
    states = torch.randn(3, 1, 2, sum(lengths), 8, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0)
    found, _ = attend_within_windows(None, *states, None, cu_seq_lens_q=ends, scaling=0.3)
    one_by_one = [
        F.scaled_dot_product_attention(*part, scale=0.3).transpose(1, 2) for part in states.split(lengths, dim=3)
    ]
    torch.testing.assert_close(found, torch.cat(one_by_one, dim=1))


def test_a_frozen_tower_changes_no_other_gradient(
    folder: Path, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    config = settings(folder, row_tokens=200)
    loaded = load(config)
    _, expected = plain_gradients(loaded, records, images)
    adapt(config, loaded.model, loaded.family)
    _, found, _ = packed_gradients(config, loaded, records, images, tmp_path)
    frozen = tuple(f"model.{name}." for name in loaded.family.vision)
    assert set(found) == {name for name in expected if not name.startswith(frozen)}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_checkpointed_gradients_are_the_same(
    folder: Path, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    config = settings(folder, freeze_vision=False, row_tokens=200)
    loaded = load(config)
    _, expected, _ = packed_gradients(config, loaded, records, images, tmp_path)
    loaded.model.activation_checkpointing_enable({"use_reentrant": False})
    _, found, _ = packed_gradients(config, loaded, records, images, tmp_path)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_rows_are_full_and_within_the_budget() -> None:
    lengths = [5, 9, 3, 7, 2, 2, 8, 1]
    rows = fill_rows(lengths, 10)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 10 for row in rows)
    assert len(rows) == 4


def test_patches_as_products_are_the_convolution() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4))
    ours = copy.deepcopy(plain)
    patches_as_products(ours)
    assert type(ours) is PatchConvolution and ours.state_dict().keys() == plain.state_dict().keys()
    for shape in ((5, 3, 2, 4, 4), (1, 3, 4, 8, 8)):  # patches; a clip of more than one
        patches = torch.randn(shape)
        found, expected = ours(patches), plain(patches)
        assert found.shape == expected.shape and torch.allclose(found, expected, atol=1e-6)
        for module, output in ((ours, found), (plain, expected)):
            module.zero_grad()
            output.square().sum().backward()
        for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
            assert one.grad is not None and other.grad is not None
            assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_qwens_towers_take_their_patches_as_products(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    model = load(settings(tmp_path)).model
    assert [type(module) for module in model.modules() if isinstance(module, torch.nn.Conv3d)] == [PatchConvolution]
