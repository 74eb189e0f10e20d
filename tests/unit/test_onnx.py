"""The student on onnxruntime: the same answers as transformers', and graphs that are whole or not there."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from shutil import copytree

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from student_service.canary import warm_queries
from student_service.engines import loading, onnx
from student_service.engines.base import answer
from student_service.engines.loading import in_process
from student_service.engines.local import LocalEngine
from tests.student_kit import DEADLINE_S, onnx_cache, query, tiny_student
from tests.vlm_kit import clips, toy_views
from trainer.base_student import probes
from world2vlm.base_student import BASE_STUDENT
from world2vlm.errors import InvalidInputError, PreconditionError
from world2vlm.files import sha256_file
from world2vlm.images import decode_image
from world2vlm.settings import StudentSettings
from world2vlm.vlm import Prompt, StudentConfig, StudentModel
from world2vlm.vlm import onnx_cache as exports
from world2vlm.vlm.network import Chunk, Network
from world2vlm.vlm.onnx_student import OnnxStudent
from world2vlm.vlm.student import load_processor


def find(folder: Path, cache: Path | None = None) -> Path:
    return exports.find_export(folder, load_processor(folder), cache or onnx_cache())


def perception_prompts() -> list[Prompt]:
    """What the shipped student was trained on: questions of every kind about rooms with known objects."""
    views = toy_views(6, sizes=StudentConfig())
    return [
        Prompt(tuple(Image.fromarray(views.frames[view]) for view in probe.views), probe.question)
        for probe in probes(views, 4, seed=3)
    ]


def typed_prompts(count: int) -> list[Prompt]:
    queries = warm_queries()
    asked = itertools.islice(queries, count)
    return [Prompt(tuple(map(decode_image, query.images)), query.text, query.task) for query in asked]


def test_it_answers_as_transformers_does_token_for_token() -> None:
    ours, theirs = OnnxStudent.load(BASE_STUDENT, onnx_cache()), StudentModel.load(BASE_STUDENT)
    prompts = [*perception_prompts(), *typed_prompts(16)]
    assert len({prompt.task for prompt in prompts}) == 9
    for batch in (1, 16):
        for start in range(0, len(prompts), batch):
            some = prompts[start : start + batch]
            for one, other in zip(ours.answer(some), theirs.answer(some), strict=True):
                assert one.text == other.text
                assert (one.prompt_tokens, one.answer_tokens) == (other.prompt_tokens, other.answer_tokens)
                assert one.probability == pytest.approx(other.probability, abs=1e-4)


@torch.inference_mode()
def test_rows_of_unequal_lengths_are_masked_right() -> None:
    networks: list[Network] = [OnnxStudent.load(BASE_STUDENT, onnx_cache()).network()]
    networks.append(StudentModel.load(BASE_STUDENT).network())
    rng = np.random.default_rng(0)
    pictures = clips(4, StudentConfig().frame_size)
    tokens = [[rng.integers(0, 256, rng.integers(1, 12)).tolist() for _ in range(4)] for _ in range(3)]
    seen = []
    for network in networks:
        cache = network.new_cache(6, network.prefix_length + 40)
        prefixes = network.read(pictures)
        for row, prefix in enumerate(prefixes, start=1):
            cache.write_prefix(row, prefix)
        logits, starts = [], [network.prefix_length] * 4
        for chunk in tokens:
            logits.append(network.extend(cache, Chunk(1, chunk, starts)))
            starts = [start + len(row) for start, row in zip(starts, chunk, strict=True)]
        seen.append([*prefixes, *logits])
    for one, other in zip(*seen, strict=True):
        assert torch.allclose(torch.as_tensor(one), other, atol=1e-4, rtol=1e-4)


def test_checkpoints_of_one_architecture_share_their_graphs() -> None:
    assert find(tiny_student(1)) == find(tiny_student(2)) != find(BASE_STUDENT)
    assert sum(path.stat().st_size for path in find(BASE_STUDENT).iterdir()) < 1_000_000
    prompts = typed_prompts(8)
    said = []
    for seed in (1, 2):
        ours = OnnxStudent.load(tiny_student(seed), onnx_cache()).answer(prompts)
        theirs = StudentModel.load(tiny_student(seed)).answer(prompts)
        assert [one.text for one in ours] == [one.text for one in theirs]
        said.append([(one.text, one.probability) for one in ours])
    assert said[0] != said[1]


def test_damaged_graphs_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find(tiny_student())
    damaged = tmp_path / whole.name
    copytree(whole, damaged)
    monkeypatch.setattr(exports, "_export", lambda folder, out: copytree(whole, out, dirs_exist_ok=True))
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])):
        for name in ("read.onnx", "extend.onnx", "weights.json", "export.json"):
            damage(damaged / name)
            assert find(tiny_student(), tmp_path) == damaged
            assert sha256_file(damaged / name) == sha256_file(whole / name)
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]


def test_an_export_that_is_killed_leaves_nothing_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find(tiny_student())
    code = (
        "import sys; from pathlib import Path; from world2vlm.vlm.onnx_student import OnnxStudent;"
        "OnnxStudent.load(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tiny_student(), tmp_path], start_new_session=True)
    deadline = time.monotonic() + DEADLINE_S
    while not any(tmp_path.glob(".*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("[!.]*"))
    for left in tmp_path.glob(".*"):
        os.utime(left, (0, 0))
    monkeypatch.setattr(exports, "_export", lambda folder, out: copytree(whole, out, dirs_exist_ok=True))
    assert find(tiny_student(), tmp_path) == tmp_path / whole.name
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]


def test_unfit_checkpoints_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    copytree(tiny_student(), folder)
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, folder / "model.safetensors")
    with pytest.raises(InvalidInputError, match="not finite"):
        OnnxStudent.load(folder, onnx_cache())
    save_file({key: weight for key, weight in weights.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(InvalidInputError, match="do not fit its config"):
        OnnxStudent.load(folder, onnx_cache())
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(PreconditionError, match="unfit"):
        onnx.load(folder, onnx_cache())


def test_the_shipped_graphs_are_those_of_the_shipped_student(tmp_path: Path) -> None:
    """Where this fails, make them anew: python -m world2vlm.vlm.onnx_cache."""
    assert find(BASE_STUDENT, tmp_path).parent == exports.SHIPPED
    assert not any(tmp_path.iterdir())
    assert len(list(exports.SHIPPED.iterdir())) == 1


def test_how_weights_are_stored_and_by_whom_makes_no_other_architecture(tmp_path: Path) -> None:
    folder = copytree(BASE_STUDENT, tmp_path / "student")
    config = json.loads((folder / "config.json").read_bytes())
    config["dtype"] = config["text_config"]["dtype"] = "float32"
    config["transformers_version"] = "4.99"
    (folder / "config.json").write_text(json.dumps(config))
    assert find(folder, tmp_path / "cache").parent == exports.SHIPPED


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PreconditionError, match="cache"):
        onnx.load(tiny_student(), tmp_path / "file")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="runs on a GPU here")
def test_a_device_without_a_provider_is_refused() -> None:
    with pytest.raises(PreconditionError, match="cuda"):
        onnx.load(tiny_student(), onnx_cache(), "cuda")


ON_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="transformers is faster on a GPU")


@pytest.mark.parametrize("engine", ["onnx", pytest.param("auto", marks=ON_GPU)])
def test_settings_choose_it(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [query("Where is the red chair?"), query("Is there a blue sofa?", images=2)]
    with closing(LocalEngine.load(tiny_student())) as theirs:
        expected = [reply.text for reply in answer(theirs, queries, 8)]
    monkeypatch.delattr(StudentModel, "load")
    settings = StudentSettings.load(engine=engine, onnx_cache=onnx_cache(), threads=1)
    with closing(in_process(settings)(tiny_student())) as ours:
        assert [reply.text for reply in answer(ours, queries, 8)] == expected


def test_a_large_student_is_answered_by_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "_SMALL_BYTES", 1)
    settings = StudentSettings.load(engine="auto", device="cpu", onnx_cache=tmp_path, threads=1)
    with closing(in_process(settings)(tiny_student())) as engine:
        assert len(answer(engine, [query("Where is the red chair?")], 8)) == 1
    assert not any(tmp_path.iterdir())
