"""A full-size student answers as transformers' own `generate` does, in all families, and typed where asked so."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.finetune_kit import make_records, run, settings
from tests.fullsize_kit import FAMILY_NAMES, family_student, generate, picture, tiny_family
from trainer.finetune.encoding import Encoder
from world2vlm.adapters import merged
from world2vlm.errors import InvalidInputError, UnavailableError
from world2vlm.images import decode_image
from world2vlm.tasks import TASKS, parse_answer
from world2vlm.vlm import Prompt
from world2vlm.vlm.fullsize.families import find_family
from world2vlm.vlm.fullsize.network import FamilyNetwork, Seen
from world2vlm.vlm.fullsize.student import FamilyStudent

PROMPTS = [
    Prompt((picture(1),), "Where is the red chair?"),
    Prompt((picture(2), picture(3, 40, 40)), "Is there a blue sofa in the second image? And how many tables?"),
    Prompt((picture(4, 24, 32),), "How?"),
    Prompt((picture(1), picture(2)), "Where is the red chair?"),
]


@pytest.fixture(params=FAMILY_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def student(name: str) -> FamilyStudent:
    return family_student(name)


def fresh(name: str) -> FamilyStudent:
    """Another one, with empty caches."""
    known = family_student(name)
    return FamilyStudent(known.model, known.processor)


def test_answers_are_those_of_generate_alone_and_together(student: FamilyStudent) -> None:
    expected = [generate(student, list(prompt.images), prompt.text, 12) for prompt in PROMPTS]
    jobs = [student.inputs(prompt).job(12) for prompt in PROMPTS]
    assert [list(student.decode([job])[0].ids) for job in jobs] == expected
    assert [list(decoded.ids) for decoded in student.decode(jobs)] == expected
    assert len({tuple(ids) for ids in expected}) == len(PROMPTS)


def test_answers_that_join_and_leave_stay_what_they_are(student: FamilyStudent) -> None:
    limits = [3, 12, 7, 12]
    jobs = [student.inputs(prompt).job(limit) for prompt, limit in zip(PROMPTS, limits, strict=True)]
    expected = [student.decode([job])[0] for job in jobs]
    decoder = student.decoder(3, 64, 12)
    waiting, found = list(enumerate(jobs)), {}
    while len(found) < len(jobs):
        if waiting and decoder.active < decoder.capacity:
            decoder.admit(*waiting.pop(0))
        found.update({each.key: each.decoded for each in decoder.step() if each.decoded is not None})
    for key, decoded in enumerate(expected):
        assert found[key].ids == decoded.ids
        assert found[key].probabilities == pytest.approx(decoded.probabilities, rel=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_typed_answers_always_parse(student: FamilyStudent, task: str) -> None:
    images = (picture(5), picture(6, 40, 24))[: TASKS[task].images]
    limit = student.grammars.max_answer_tokens(task)
    (reply,) = student.answer([Prompt(images, "What?", task)], limit)
    parse_answer(task, reply.text)
    assert 0 < reply.probability <= 1 and reply.answer_tokens <= limit
    with pytest.raises(InvalidInputError, match=f"takes up to {limit} tokens"):
        student.answer([Prompt(images, "What?", task)], limit - 1)


def test_yes_and_no_share_the_probability(student: FamilyStudent) -> None:
    inputs = student.inputs(Prompt((picture(7),), "Is it so?", "D2"))
    (decoded,) = student.decode([inputs.job(8)])
    tokenizer = student.processor.tokenizer
    yes, no = (student._form.spell(tokenizer, word) for word in ("yes", "no"))
    # What both begin with is forced.
    shared = next(index for index, (one, other) in enumerate(zip(yes, no, strict=False)) if one != other)
    ids = torch.tensor([[*inputs.clip.ids, *inputs.tokens, *yes[:shared]]])
    logits = plain_logits(student, ids, inputs.clip.pictures)[[yes[shared], no[shared]]]
    chances = dict(zip(("yes", "no"), logits.softmax(dim=0).tolist(), strict=True))
    assert decoded.probabilities[0] == pytest.approx(chances[student.text(decoded.ids)], rel=1e-3)


@torch.inference_mode()
def plain_logits(student: FamilyStudent, ids: torch.Tensor, pictures: Sequence[Seen]) -> torch.Tensor:
    """What transformers' own forward pass says of the next token."""
    inputs = {name: torch.cat([seen.tensors[name] for seen in pictures]) for name in pictures[0].tensors}
    if find_family(student.model.config).grid_positions:
        inputs["mm_token_type_ids"] = (ids == student.model.config.image_token_id).int()
    return student.model(input_ids=ids, **inputs).logits[0, -1]


def test_ten_questions_about_one_picture_are_one_look_and_one_prefix(name: str) -> None:
    student = fresh(name)
    prompts = [Prompt((picture(1),), f"Where is chair {number}?") for number in range(10)]
    decoder = student.decoder(4, 64, 4)
    for key, prompt in enumerate(prompts):
        decoder.admit(key % 4, student.inputs(prompt).job(4))
        while decoder.active == 4 or (key == 9 and decoder.active):
            decoder.step()
    assert (student.network().looks, decoder.prefixes.misses, decoder.prefixes.hits) == (1, 1, 9)
    student.answer([Prompt((picture(1), picture(2)), "Where?")], 2)
    assert student.network().looks == 2, "of the two pictures one was known"


def test_forced_tokens_cost_no_forward_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    student = fresh(name)
    passes = []
    extend = FamilyNetwork.extend
    monkeypatch.setattr(FamilyNetwork, "extend", lambda *args: passes.append(1) or extend(*args))
    (reply,) = student.answer([Prompt((picture(1), picture(2)), "How far?", "A1")])
    assert len(passes) < reply.answer_tokens


def test_a_prompt_has_the_tokens_that_the_model_is_trained_with(student: FamilyStudent, tmp_path: Path) -> None:
    model, processor = student.model, student.processor
    encoder = Encoder(processor, model.model, find_family(model.config), tmp_path / "kept", tmp_path, frozen=False)
    for record in make_records(tmp_path, 6):
        example = encoder.example(encoder.entry(record))
        trained = example.ids[~example.is_answer].tolist()
        images = tuple(decode_image((tmp_path / path).read_bytes()) for path in record.images)
        inputs = student.inputs(Prompt(images, record.question))
        assert [*inputs.clip.ids, *inputs.tokens] == trained
        answer = example.ids[example.is_answer].tolist()
        assert [*student._form.spell(processor.tokenizer, record.assistant), student._form.end] == answer
        assert student.text(answer) == record.assistant


def test_an_adapter_is_merged_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base = tiny_family(name)
    config = settings(base, steps=2, learning_rate=0.2)
    run(config, make_records(tmp_path / "images", 6), tmp_path / "images", tmp_path / "out")
    with merged(tmp_path / "out", base) as folder:
        student = FamilyStudent.load(folder)
    plain = FamilyStudent.load(base)
    adapted = PeftModel.from_pretrained(plain.model, tmp_path / "out").base_model.model
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        expected = adapted(input_ids=ids).logits
        assert torch.allclose(student.model(input_ids=ids).logits, expected, atol=1e-3)
        assert not torch.allclose(family_student(name).model(input_ids=ids).logits, expected, atol=1e-2)


def test_what_cannot_be_asked_is_refused(student: FamilyStudent) -> None:
    token = student.processor.tokenizer.all_special_tokens[0]
    for bad, text in (
        (Prompt((), "Where?"), "at least one image"),
        (Prompt((picture(1),), " "), "empty"),
        (Prompt((picture(1),), f"Where {token}?"), "control token"),
        (Prompt((picture(1),), "Where <image>?"), "control token"),
        (Prompt((picture(1),), "where " * 5000), "the model reads 4096"),
        (Prompt((picture(1),), "Where?", "A9"), "unknown task"),
    ):
        with pytest.raises(InvalidInputError, match=text):
            student.inputs(bad)


def test_a_prompt_without_memory_for_it_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    student = family_student("qwen2_5_vl")
    decoder = student.decoder(2, 64, 4)
    decoder.admit(0, student.inputs(PROMPTS[0]).job(4))
    decoder.step()
    long = student.inputs(Prompt((picture(1),), "where " * 500)).job(4)

    def exhausted() -> torch.Tensor:
        raise torch.OutOfMemoryError

    real, calls = torch.Tensor.new_zeros, iter(range(100))
    # Not at the first layer.
    monkeypatch.setattr(torch.Tensor, "new_zeros", lambda *a: real(*a) if next(calls) < 1 else exhausted())
    with pytest.raises(UnavailableError, match="smaller pictures"):
        decoder.admit(1, long)
    monkeypatch.undo()
    ids = []
    while decoder.active:
        ids += [token for progress in decoder.step() for token in progress.ids]
    assert student.decode([student.inputs(PROMPTS[0]).job(4)])[0].ids[1:] == tuple(ids)


def test_temperatures_change_probabilities_and_no_answer() -> None:
    student = family_student("qwen2_5_vl")
    prompt = Prompt((picture(1),), "Is it so?", "D2")
    (text, (plain, flat)), *_ = student.answer_at([prompt], {"binary": [1.0, 1e6]})
    assert text in ("yes", "no") and plain > flat == pytest.approx(0.5, rel=1e-3)


def test_drawn_answers_differ_by_their_seeds() -> None:
    student = family_student("qwen2_5_vl")
    job = student.inputs(Prompt((picture(1),), "Where?")).job(6)
    drawn = student.decode([replace(job, seed=seed) for seed in (1, 1, 2)])
    assert drawn[0].ids == drawn[1].ids != drawn[2].ids


def test_a_picture_is_known_by_its_pixels_and_size() -> None:
    student = family_student("qwen2_5_vl")
    one = student.to_frame(picture(1, 32, 24))
    assert one.digest == student.to_frame(picture(1, 32, 24)).digest and one.nbytes > 0
    assert one.digest != student.to_frame(picture(1, 24, 32)).digest


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_picture_that_the_processor_does_not_take_is_refused(family: str) -> None:
    with pytest.raises(InvalidInputError, match="no picture of 600 x 2 pixels"):
        family_student(family).to_frame(picture(1, 600, 2))
