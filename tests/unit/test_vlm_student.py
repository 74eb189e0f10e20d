"""The student model: a checkpoint reloads exactly or is refused, and an answer does not depend on its batch."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.vlm_kit import noise, student
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import TASKS, parse_answer
from world2vlm.vlm import Prompt, StudentModel
from world2vlm.vlm.decoding import control_tokens
from world2vlm.vlm.grammar import max_answer_tokens
from world2vlm.vlm.vocabulary import number_words

STUDENT = student()
PROMPTS = [
    Prompt((noise(0),), "Where is the red chair?"),
    Prompt((noise(1), noise(2)), "How many degrees did the camera turn?"),
    Prompt((noise(3, 64, 20),), "?"),
    Prompt((noise(4), noise(0)), "Is the red chair left of the blue lamp in the second image?"),
]


def logits(model: StudentModel) -> torch.Tensor:
    inputs = model.processor.encode_batch([prompt.images for prompt in PROMPTS], [prompt.text for prompt in PROMPTS])
    with torch.inference_mode():
        return model.model(**inputs).logits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    STUDENT.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_the_same_seed_gives_the_same_student() -> None:
    again, other = student().model.state_dict(), student(1).model.state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in STUDENT.model.state_dict().items())
    assert not torch.equal(other["lm_head.weight"], again["lm_head.weight"])


def test_neighbouring_numbers_and_patches_start_out_alike() -> None:
    table = STUDENT.model.model.language_model.embed_tokens.weight
    numbers = table[STUDENT.processor.tokenizer.convert_tokens_to_ids(number_words())].detach()
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(numbers[:-1], numbers[1:]).mean() > 0.95
    assert cosine(numbers[:-500], numbers[500:]).abs().mean() < 0.6


def test_a_saved_student_loads_with_identical_logits(folder: Path) -> None:
    loaded = StudentModel.load(folder)
    assert not loaded.model.training
    assert torch.equal(logits(loaded), logits(STUDENT))
    assert loaded.answer(PROMPTS, max_new_tokens=6) == STUDENT.answer(PROMPTS, max_new_tokens=6)
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def not_finite(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights["model.language_model.norm.weight"].fill_(math.nan))


def lacking_a_tensor(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("model.language_model.norm.weight"))


def with_a_stray_tensor(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update(stray=torch.zeros(2)))


def of_another_shape(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({"model.language_model.norm.weight": torch.ones(7)}))


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def as_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def edit_config(folder: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def of_another_size(folder: Path) -> None:
    edit_config(folder, lambda config: config["text_config"].update(hidden_size=64))


def with_more_layers(folder: Path) -> None:
    edit_config(folder, lambda config: config["text_config"].update(num_hidden_layers=3, layer_types=None))


def of_another_kind(folder: Path) -> None:
    edit_config(folder, lambda config: config.update(model_type="llama", architectures=["LlamaForCausalLM"]))


def with_broken_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


UNFIT = [
    not_finite, lacking_a_tensor, with_a_stray_tensor, of_another_shape, truncated, without_weights, without_config,
    without_tokenizer, as_a_pickle, of_another_size, with_more_layers, of_another_kind, with_broken_json,
]  # fmt: skip


@pytest.mark.parametrize("spoil", UNFIT, ids=lambda spoil: spoil.__name__)
def test_an_unfit_checkpoint_is_refused(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder)
    with pytest.raises(InvalidInputError, match="checkpoint"):
        StudentModel.load(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="checkpoint"):
        StudentModel.load(tmp_path)


def test_an_answer_does_not_depend_on_its_batch() -> None:
    together = STUDENT.answer(PROMPTS, max_new_tokens=8)
    alone = [STUDENT.answer([prompt], max_new_tokens=8)[0] for prompt in PROMPTS]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.prompt_tokens for reply in together] == [reply.prompt_tokens for reply in alone]
    assert [reply.answer_tokens for reply in together] == [reply.answer_tokens for reply in alone]
    assert [reply.probability for reply in together] == pytest.approx([reply.probability for reply in alone], rel=1e-3)
    assert len({reply.prompt_tokens for reply in alone}) > 1


def test_the_second_image_is_seen() -> None:
    pairs = [Prompt((noise(1), noise(second)), "Where is the red chair?") for second in (1, 2)]
    inputs = STUDENT.processor.encode_batch([pair.images for pair in pairs], [pair.text for pair in pairs])
    with torch.inference_mode():
        first, second = STUDENT.model(**inputs).logits[:, -1]
    assert not torch.allclose(first, second, atol=1e-3)


def test_free_text_is_what_transformers_own_generate_says() -> None:
    for prompt in PROMPTS:
        inputs = STUDENT.processor.encode_batch([prompt.images], [prompt.text])
        tokenizer = STUDENT.processor.tokenizer
        output = STUDENT.model.generate(
            **inputs, max_new_tokens=12, do_sample=False, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, suppress_tokens=control_tokens(tokenizer),
        )  # fmt: skip
        expected = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert STUDENT.answer([prompt], max_new_tokens=12)[0].text == expected


def test_tokens_are_counted() -> None:
    reply = STUDENT.answer(PROMPTS[:1], max_new_tokens=5)[0]
    assert 1 <= reply.answer_tokens <= 5
    assert reply.prompt_tokens == len(STUDENT.processor.prompt_ids(PROMPTS[0].text))
    assert STUDENT.inputs(Prompt(PROMPTS[0].images, "Where is the red chair?")).question_tokens == 5


def say(text: str, other: str, rest: float) -> StudentModel:
    """A student whose logits are the same at each step: 2 for `text`, 1 for `other`, `rest` for all other tokens."""
    model = student()
    tokens = model.processor.tokenizer.convert_tokens_to_ids
    head = torch.nn.Linear(32, len(model.processor.tokenizer), bias=True)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(rest)
        head.bias[tokens(text)] = 2.0
        head.bias[tokens(other)] = 1.0
    model.model.lm_head = head
    return model


@pytest.mark.parametrize(
    ("task", "said", "other"),
    [("D2", "yes", "no"), ("D4", "no", "yes"), ("A4", "true", "false"), ("A4", "false", "true")],
)
def test_the_probability_of_a_binary_answer_is_normalised_over_its_pair(task: str, said: str, other: str) -> None:
    prompt = Prompt(PROMPTS[1].images, PROMPTS[1].text, task)
    reply = say(said, other, rest=0.0).answer([prompt])[0]
    assert (reply.text, reply.answer_tokens) == (said, 2)
    # Logits 2 and 1 among a thousand zeros: over the pair alone that is sigmoid(1), over all words about 0.005.
    assert reply.probability == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-5)


def test_a_temperature_changes_the_probability_and_not_the_answer() -> None:
    prompt = Prompt(PROMPTS[1].images, PROMPTS[1].text, "D2")
    model = say("yes", "no", rest=0.0)
    model.temperatures = {"binary": 2.0, "box": 9.0}
    reply = model.answer([prompt])[0]
    assert reply.text == "yes"
    assert reply.probability == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-5)


def test_a_calibration_is_saved_and_loaded_with_the_weights(tmp_path: Path) -> None:
    model = student()
    model.temperatures = {"binary": 1.5}
    model.save(tmp_path)
    assert StudentModel.load(tmp_path).temperatures == {"binary": 1.5}


@pytest.mark.parametrize("text", ["[]", "{", '{"binary": 0}', '{"binary": "hot"}', '{"other": 1}', '{"box": NaN}'])
def test_a_broken_calibration_is_refused(folder: Path, text: str) -> None:
    (folder / "calibration.json").write_text(text)
    with pytest.raises(InvalidInputError, match="calibration"):
        StudentModel.load(folder)


def test_the_probability_of_a_longer_answer_is_the_product_of_its_tokens() -> None:
    model = say("7", "8", rest=-20.0)
    reply = model.answer(PROMPTS[:1], max_new_tokens=3)[0]
    assert (reply.text, reply.answer_tokens) == ("777", 3)
    assert reply.probability == pytest.approx((1 / (1 + math.exp(-1))) ** 3, rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_an_untrained_student_answers_every_task_in_its_form(task: str) -> None:
    for seed in range(5):
        model = student(seed)
        prompts = [Prompt(prompt.images, prompt.text, task) for prompt in PROMPTS]
        for reply in model.answer(prompts):
            parse_answer(task, reply.text)
            assert 0 < reply.probability <= 1
            assert reply.answer_tokens <= max_answer_tokens(task)


def test_a_typed_answer_is_never_cut_short() -> None:
    with pytest.raises(InvalidInputError, match="up to 10 tokens"):
        STUDENT.answer([Prompt(PROMPTS[1].images, "Where?", "D1")], max_new_tokens=9)


@pytest.mark.parametrize("count", [0, 3])
def test_a_prompt_with_another_number_of_images_is_rejected(count: int) -> None:
    with pytest.raises(InvalidInputError, match="one or two images"):
        STUDENT.answer([Prompt((noise(0),) * count, "Where?")])
