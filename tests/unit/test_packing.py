"""The packed forward pass: exactly what transformers computes for each question alone, at a fraction of the cost."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.vlm_kit import TINY, clips, student
from trainer.packing import IGNORE, Example, PackedStudent
from world2vlm.vlm import StudentConfig, StudentModel

PATCH_WISE = StudentConfig(
    frame_size=24, patch_size=8, merge_size=1, vision_layers=3, text_layers=1, vision_width=32, text_width=64
)
ROWS = [
    [
        Example("Where is the red chair?", "[10, 20, 300, 1000]", 1.0, ordinal=True),
        Example("Is there a blue lamp in the second image?", "no", 2.0),
        Example("How many chairs are there?", "3", 0.5),
    ],
    [Example("Is the red chair left of the blue lamp?", "yes", 2.0)],
    [
        Example("What is in bbox [0, 1, 2, 3]?", "red chair", 2.0),
        Example("Where is it, in plain bytes?", "[7, 8, 9, 10]", 1.0, ordinal=True),
    ],
]
SIGMA = 12.0


def reference(model: StudentModel, clip: np.ndarray, example: Example) -> tuple[torch.Tensor, list[int]]:
    """transformers' last hidden states of one question with its answer, after the clip; and those tokens."""
    processor = model.processor
    answer = [*processor.encode_question(example.answer), processor.tokenizer.eos_token_id]
    inputs = processor.encode_batch([[Image.fromarray(frame) for frame in clip]], [example.question])
    ids = torch.tensor([processor.prompt_ids(example.question) + answer])
    inputs |= {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == processor.image_token_id).long(),
    }
    start = len(processor.clip_ids())
    return model.model.model(**inputs).last_hidden_state[0, start:], ids[0, start:].tolist()


def spans(model: StudentModel, examples: Sequence[Example]) -> list[slice]:
    """Where each example lies in its row."""
    processor, start, found = model.processor, len(model.processor.clip_ids()), []
    for example in examples:
        length = len(processor.prompt_ids(example.question)) - len(processor.clip_ids())
        length += len(processor.encode_question(example.answer)) + 1
        found.append(slice(start, start + length))
        start += length
    return found


@pytest.mark.parametrize("sizes", [TINY, PATCH_WISE, replace(TINY, vision_layers=1), StudentConfig()])
def test_hidden_states_equal_transformers_own(sizes: StudentConfig) -> None:
    model = student(sizes=sizes)
    packed = PackedStudent(model)
    frames = clips(len(ROWS), sizes.frame_size)
    with torch.no_grad():
        batch = packed.pack(ROWS)
        hidden = packed.hidden_states(batch, packed.see(frames))
        for row, examples in enumerate(ROWS):
            for example, span in zip(examples, spans(model, examples), strict=True):
                expected, tokens = reference(model, frames[row], example)
                assert batch.input_ids[row, span].tolist() == tokens
                torch.testing.assert_close(hidden[row, span], expected, rtol=0, atol=1e-4)


def test_visual_tokens_equal_transformers_own() -> None:
    model = student()
    frames = clips(3)
    processor = model.processor
    with torch.no_grad():
        visual, deepstack = PackedStudent(model).see(frames)
        expected = model.model.model.visual(
            processor.clip_patches(frames).flatten(0, 1), grid_thw=torch.tensor([[1, 4, 4]] * 3)
        )
    torch.testing.assert_close(visual.flatten(0, 1), expected.pooler_output, rtol=0, atol=1e-5)
    assert len(deepstack) == len(expected.deepstack_features) == 1
    torch.testing.assert_close(deepstack[0], expected.deepstack_features[0], rtol=0, atol=1e-5)


def naive_terms(model: StudentModel, clip: np.ndarray, example: Example) -> list[torch.Tensor]:
    """Cross entropy of each token of the answer, by transformers' own forward pass and by the definition."""
    hidden, tokens = reference(model, clip, example)
    log_probabilities = model.model.lm_head(hidden).log_softmax(dim=-1)
    answer = len(model.processor.encode_question(example.answer)) + 1
    numbers = model.processor.tokenizer.convert_tokens_to_ids([str(value) for value in range(1001)])
    terms = []
    for position in range(len(tokens) - answer, len(tokens)):
        before, token = log_probabilities[position - 1], tokens[position]
        if example.ordinal and token in numbers:
            bell = torch.tensor([np.exp(-((k - numbers.index(token)) ** 2) / (2 * SIGMA**2)) for k in range(1001)])
            terms.append(-(bell / bell.sum() * before[numbers]).sum())
        else:
            terms.append(-before[token])
    return terms


def test_the_loss_equals_the_naive_loss() -> None:
    model = student()
    packed = PackedStudent(model, sigma=SIGMA)
    frames = clips(len(ROWS))
    with torch.no_grad():
        loss = packed.loss(packed.pack(ROWS), packed.see(frames))
        total = weights = 0.0
        for row, examples in enumerate(ROWS):
            for example in examples:
                terms = naive_terms(model, frames[row], example)
                total += example.weight * float(sum(terms))
                weights += example.weight * len(terms)
    assert float(loss) == pytest.approx(total / weights, abs=1e-4)


def test_gradients_equal_those_of_the_naive_loss() -> None:
    model = student()
    packed = PackedStudent(model, sigma=SIGMA)
    frames = clips(1)
    examples = ROWS[0][:2]
    names = ["model.visual.patch_embed.proj.weight", "model.language_model.embed_tokens.weight"]
    weights = [dict(model.model.named_parameters())[name] for name in names]
    found = torch.autograd.grad(packed.loss(packed.pack([examples]), packed.see(frames)), weights)
    terms = [(example.weight, naive_terms(model, frames[0], example)) for example in examples]
    naive = sum(weight * sum(each) for weight, each in terms) / sum(weight * len(each) for weight, each in terms)
    for mine, expected in zip(found, torch.autograd.grad(naive, weights), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-5)


def hidden_of(model: StudentModel, examples: Sequence[Example]) -> list[torch.Tensor]:
    packed = PackedStudent(model)
    with torch.no_grad():
        hidden = packed.hidden_states(packed.pack([examples]), packed.see(clips(1)))
    return [hidden[0, span] for span in spans(model, examples)]


def test_questions_do_not_see_each_other() -> None:
    model = student()
    first, *others = hidden_of(model, ROWS[0])
    changed = Example("Is the red chair left of the blue lamp in the second image?", "yes")
    new_first, *new_others = hidden_of(model, [changed, *ROWS[0][1:]])
    assert first.shape != new_first.shape
    for before, after in zip(others, new_others, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-5)
    *same, last = hidden_of(model, [*ROWS[0][:2], changed])
    assert not torch.allclose(last[:5], others[1][:5], atol=1e-3)
    for before, after in zip([first, others[0]], same, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-5)


def test_only_answers_are_labelled() -> None:
    model = student()
    batch = PackedStudent(model).pack(ROWS)
    for row, examples in enumerate(ROWS):
        labels = batch.labels[row]
        text = model.processor.tokenizer.decode(labels[labels != IGNORE])
        assert text == "".join(f"{example.answer}<|im_end|>" for example in examples)
        assert bool((batch.weights[row][labels == IGNORE] == 0).all())
        assert not bool(batch.ordinal[row][labels == IGNORE].any())
    assert batch.input_ids.shape[1] % 32 == 0


def test_a_near_miss_costs_less_than_a_far_one_only_where_numbers_are_ordinal() -> None:
    model = student()
    numbers = model.processor.tokenizer.convert_tokens_to_ids([str(value) for value in range(1001)])
    head = torch.nn.Linear(32, len(model.processor.tokenizer))
    packed = PackedStudent(model, sigma=SIGMA)
    model.model.lm_head = head

    def loss(guess: int, ordinal: bool) -> float:
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
            head.bias[numbers[guess]] = 5.0
            batch = packed.pack([[Example("Where?", "[500, 500, 500, 500]", ordinal=ordinal)]])
            return float(packed.loss(batch, packed.see(clips(1))))

    assert loss(505, ordinal=True) < loss(530, ordinal=True) < loss(600, ordinal=True)
    assert loss(505, ordinal=False) == pytest.approx(loss(600, ordinal=False))
    assert loss(500, ordinal=False) < loss(500, ordinal=True)
