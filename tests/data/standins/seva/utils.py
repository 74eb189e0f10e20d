"""`seva.utils`."""

import os

from standin_painting import loading

from seva.model import Seva


def load_model(
    model_version=1.1,
    pretrained_model_name_or_path="stabilityai/stable-virtual-camera",
    weight_name="model.safetensors",
    device="cuda",
    verbose=False,
):
    loading()
    if os.path.isdir(pretrained_model_name_or_path):
        assert os.path.isfile(os.path.join(pretrained_model_name_or_path, weight_name)), weight_name
    else:
        assert weight_name == "model.safetensors"
    assert device == "cpu"
    return Seva()
