"""`seva.eval`: two passes over a path, each chunk of a pass normalised by its own first camera."""

import math
import os

import numpy as np
import torch
from PIL import Image
from standin_painting import step, view


def infer_prior_stats(T, num_input_frames, num_total_frames, version_dict):
    assert version_dict["options"]["chunk_strategy"] == "interp" and num_input_frames == 1
    return max(math.ceil(num_total_frames / (T - 2)) + 1, T - num_input_frames)


def get_value_dict(
    curr_imgs, curr_input_frame_indices, curr_c2ws, curr_Ks, curr_input_camera_indices, all_c2ws, camera_scale
):
    positions = all_c2ws[:, :3, 3]
    from_median = (positions - positions.median(0, keepdim=True).values).norm(dim=-1)
    counted = from_median <= torch.clamp(torch.quantile(from_median, 0.97) * 10, max=1e6)
    centred = curr_c2ws[:, :3, 3] - positions[counted].mean(0)
    first = centred[0].norm()
    on_the_mean = torch.isclose(first, torch.zeros(1), atol=1e-5).any()
    factor = float(camera_scale if on_the_mean else camera_scale / first)
    c2w = curr_c2ws.clone()
    c2w[:, :3, 3] = centred * factor
    return {"c2w": c2w, "K": curr_Ks, "factor": factor}


def run_one_scene(
    task,
    version_dict,
    model,
    ae,
    conditioner,
    denoiser,
    image_cond,
    camera_cond,
    save_path,
    use_traj_prior,
    traj_prior_Ks,
    traj_prior_c2ws,
    seed=23,
    gradio=False,
    abort_event=None,
    first_pass_pbar=None,
    second_pass_pbar=None,
):
    assert task == "img2trajvid_s-prob" and use_traj_prior
    assert model.device == ae.device == conditioner.device == "cuda"
    height, width, length = version_dict["H"], version_dict["W"], version_dict["T"]
    options = version_dict["options"]
    options["num_frames"] = length  # it changes what it is given
    painting = np.asarray(Image.open(image_cond["img"][0]).convert("RGB"))
    assert painting.shape == (height, width, 3)
    k, c2ws = camera_cond["K"][0].double().numpy(), camera_cond["c2w"]
    count = len(c2ws)
    assert image_cond["img"][1:] == [None] * (count - 1) and image_cond["input_indices"] == [0]
    assert camera_cond["input_indices"] == list(range(count))
    assert c2ws.shape == (count, 3, 4) and c2ws.dtype == torch.float32
    assert len(traj_prior_c2ws) == len(image_cond["prior_indices"]) == length - 1
    camera_cond["K"] /= max(height, width)
    assert 0 <= seed < 2**64
    first_chunk = torch.cat([c2ws[:1], traj_prior_c2ws])
    if not _sample(first_chunk, c2ws, options, abort_event):
        return
    yield os.path.join(save_path, "first-pass", "samples-rgb.mp4")
    os.makedirs(os.path.join(save_path, "samples-rgb"))
    noise = np.random.default_rng(seed).integers(0, 3, (height, width, 1), dtype=np.uint8)
    for start in range(1, count, length - 2):
        targets = range(start, min(start + length - 2, count))
        # A chunk of the second pass begins with a view of the first one, not with the photo.
        chunk = torch.cat([c2ws[start : start + 1], c2ws[list(targets)]])
        values = _sample(chunk, c2ws, options, abort_event)
        if not values:
            return
        for index in targets:
            camera = np.eye(4)
            camera[:3] = c2ws[index].double().numpy()
            camera[:3, 3] *= values["factor"]
            picture = np.clip(view(painting, k, camera), 0, 252) + noise
            Image.fromarray(picture).save(os.path.join(save_path, "samples-rgb", f"{index - 1:03d}.png"))
    yield os.path.join(save_path, "samples-rgb.mp4")


def _sample(chunk, c2ws, options, abort_event):
    values = get_value_dict(None, [0], chunk, None, [0], all_c2ws=c2ws, camera_scale=options.get("camera_scale", 2.0))
    for number in range(options["num_steps"]):
        step(number)
        if abort_event is not None and abort_event.is_set():
            print("aborted", flush=True)
            return None
    return values
