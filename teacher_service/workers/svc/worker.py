"""The program that holds Stable Virtual Camera (`seva`, model version 1.1).

Its environment, made once (Python 3.10 or 3.11, a GPU with 24 GB):

    python3.10 -m venv /opt/svc
    /opt/svc/bin/pip install -r teacher_service/workers/svc/requirements.txt
    /opt/svc/bin/huggingface-cli login        # after accepting the licence on the model's page

The VAE's repository that the package names is gone: give the setting `vae` a folder with Stable Diffusion 2.1's.
"""

import importlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from teacher_service.workers.framing import frame_photo
from teacher_service.workers.serving import Asked, CancelledError, Shot
from teacher_service.workers.svc.conversion import count_still, make_version, metric_scale, prior_orders
from world2vlm.cameras import Floats

_TASK = "img2trajvid_s-prob"
_WEIGHT_NAME = "modelv1.1.safetensors"


def load(options: Mapping[str, Any]) -> "Svc":
    """Load the model, its autoencoder, its image encoder and its denoiser onto the GPU."""
    return Svc(options)


class Svc:
    """A loaded Stable Virtual Camera.

    Args:
        options: `weights`, `vae`, `side`, `steps`, `cfg` and `units_per_metre`; see `teacher_service.worlds.svc`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._side: int = options["side"]
        self._steps: int = options["steps"]
        self._cfg: float = options["cfg"]
        self._parts = _load_parts(options["weights"], options["vae"])
        self._eval: Any = importlib.import_module("seva.eval")
        keep_metres(self._eval, options["units_per_metre"])

    def imagine(self, asked: Asked, cancelled: threading.Event) -> Iterator[Shot]:
        """See `teacher_service.workers.serving.Backend`."""
        photo, intrinsics = frame_photo(asked.pixels, asked.intrinsics, self._side, self._side)
        still = count_still(asked.poses)
        for pose in asked.poses[:still]:
            yield Shot(photo, pose, intrinsics, imagined=False)
        targets = asked.poses[still:]
        if not len(targets):
            return
        with TemporaryDirectory(prefix="svc-") as folder:
            self._run(Path(folder), photo, intrinsics, targets, asked.seed, cancelled)
            for index, pose in enumerate(targets):
                yield Shot(_read_png(Path(folder, "samples-rgb", f"{index:03d}.png")), pose, intrinsics)

    def _run(
        self,
        folder: Path,
        photo: NDArray[np.uint8],
        intrinsics: Floats,
        targets: Floats,
        seed: int,
        cancelled: threading.Event,
    ) -> None:
        """Let the package write the targets' PNGs into `folder`; it changes its arguments, so all of them are fresh."""
        import torch

        Image.fromarray(photo).save(folder / "photo.png", compress_level=1)
        version = make_version(self._side, self._steps, self._cfg)
        count = self._eval.infer_prior_stats(version["T"], 1, num_total_frames=len(targets), version_dict=version)
        orders = prior_orders(len(targets), count)
        c2ws = torch.tensor(np.concatenate([np.eye(4)[None], targets])[:, :3], dtype=torch.float32)
        ks = torch.tensor(intrinsics, dtype=torch.float32).repeat(len(c2ws), 1, 1)
        priors = [round(order) for order in orders]
        passes = self._eval.run_one_scene(
            _TASK,
            version,
            **self._parts,
            image_cond={
                "img": [str(folder / "photo.png")] + [None] * len(targets),
                "input_indices": [0],
                "prior_indices": orders,
            },
            camera_cond={"c2w": c2ws.clone(), "K": ks.clone(), "input_indices": list(range(len(c2ws)))},
            save_path=str(folder),
            use_traj_prior=True,
            traj_prior_Ks=ks[priors].clone(),
            traj_prior_c2ws=c2ws[priors].clone(),
            seed=seed,
            abort_event=cancelled,
        )
        try:
            for _ in passes:
                if cancelled.is_set():
                    break
        except Exception as error:
            if cancelled.is_set():  # its passes end with nothing then, and what follows them expects something
                raise CancelledError from error
            raise
        if cancelled.is_set():
            raise CancelledError


def keep_metres(evaluation: Any, units_per_metre: float) -> None:
    """Have every forward pass of `seva.eval` keep a metre at `units_per_metre`.

    `run_one_scene` gives all passes one `camera_scale`, but normalises each by its own first camera, so one number
    can't be right for more than one of them; see `metric_scale`.
    """
    normalise = evaluation.get_value_dict

    def get_value_dict(*args: Any, all_c2ws: Any, camera_scale: float) -> Any:
        first, positions = args[2][0, :3, 3].cpu().numpy(), all_c2ws[:, :3, 3].cpu().numpy()
        return normalise(*args, all_c2ws=all_c2ws, camera_scale=metric_scale(first, positions, units_per_metre))

    evaluation.get_value_dict = get_value_dict


def _load_parts(weights: str, vae: str) -> dict[str, Any]:
    model, sampling = importlib.import_module("seva.model"), importlib.import_module("seva.sampling")
    utils, conditioner = importlib.import_module("seva.utils"), importlib.import_module("seva.modules.conditioner")
    # It adds the version to the name itself where the weights come from a repository.
    name = _WEIGHT_NAME if os.path.isdir(weights) else "model.safetensors"
    network = utils.load_model(
        model_version=1.1, pretrained_model_name_or_path=weights, weight_name=name, device="cpu"
    ).eval()
    return {
        "model": model.SGMWrapper(network).to("cuda"),
        "ae": _make_autoencoder(vae).to("cuda"),
        "conditioner": conditioner.CLIPConditioner().to("cuda"),
        "denoiser": sampling.DiscreteDenoiser(num_idx=1000, device="cuda"),
    }


def _make_autoencoder(folder: str) -> Any:
    """Make the package's autoencoder with the VAE in `folder`, not the one in the repository that is gone."""
    module: Any = importlib.import_module("seva.modules.autoencoder")
    kl = module.AutoencoderKL

    class FromFolder:
        @staticmethod
        def from_pretrained(_repository: str, **options: Any) -> Any:
            subfolder = options.pop("subfolder", None)
            nested = subfolder if subfolder and Path(folder, subfolder).is_dir() else None
            return kl.from_pretrained(folder, subfolder=nested, **options)

    module.AutoencoderKL = FromFolder
    try:
        return module.AutoEncoder(chunk_size=1)
    finally:
        module.AutoencoderKL = kl


def _read_png(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
