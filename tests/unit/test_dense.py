"""Dense targets and loss, by hand."""

import math

import numpy as np
import pytest
import torch

from tests.vlm_kit import seen
from trainer.dense import DenseHead, patch_targets
from trainer.perception import CATEGORIES, COLOURS

RED_CHAIR = [COLOURS.index("red") + 1, CATEGORIES.index("chair")]
BLUE_LAMP = [COLOURS.index("blue") + 1, CATEGORIES.index("lamp")]
NOTHING = [0.0] * 6


def test_a_patch_has_the_object_that_covers_most_of_it() -> None:
    instances = np.zeros((8, 8), dtype=np.uint8)  # 2 x 2 patches of 16 pixels
    instances[0:4, 0:4] = 1  # patch 0: all of it
    instances[0:4, 4] = 1  # patch 1: 4 pixels of the chair ...
    instances[0:4, 5:7] = 2  # ... and 8 of the lamp
    instances[4, 0:3] = 2  # patch 2: 3 pixels, under a fifth
    instances[7, 4:8] = 2  # patch 3: 4 pixels, over a fifth
    chair = seen("red", "chair", (0, 0, 625, 500), 1)
    lamp = seen("blue", "lamp", (0, 0, 1000, 1000), 2)
    targets = patch_targets(instances, [chair, lamp], grid=2)
    assert targets.dtype == np.float32
    assert targets.tolist() == [
        [*RED_CHAIR, 0.0, 0.0, 0.625, 0.5],
        [*BLUE_LAMP, 0.0, 0.0, 1.0, 1.0],
        NOTHING,
        [*BLUE_LAMP, 0.0, 0.0, 1.0, 1.0],
    ]
    assert patch_targets(instances, [lamp, chair], grid=2).tolist() == targets.tolist()


def test_what_is_no_object_in_view_is_background() -> None:
    instances = np.full((4, 4), 9, dtype=np.uint8)
    assert patch_targets(instances, [seen("red", "chair", (0, 0, 1, 1), 1)], grid=2).tolist() == [NOTHING] * 4


def test_patches_are_in_raster_order() -> None:
    instances = np.zeros((6, 6), dtype=np.uint8)
    instances[2:4, 4:6] = 1  # row 1, column 2 of a 3 x 3 grid
    targets = patch_targets(instances, [seen("red", "chair", (666, 333, 1000, 666), 1)], grid=3)
    assert np.flatnonzero(targets[:, 0]).tolist() == [5]


def zero_head(width: int = 8, patches: int = 4) -> DenseHead:
    head = DenseHead(width, patches)
    torch.nn.init.zeros_(head.auxiliary.weight)
    return head


def test_the_loss_of_a_head_that_knows_nothing() -> None:
    targets = torch.zeros(1, 4, 2, 6)
    targets[0, 1, 0] = torch.tensor([*RED_CHAIR, 0.1, 0.2, 0.3, 0.4])
    loss, right = zero_head().loss(torch.randn(1, 1, 8), targets)
    expected = math.log(len(COLOURS) + 1) + 0.5 * math.log(len(CATEGORIES)) + 4.0 * (0.1 + 0.2 + 0.3 + 0.4) / 4
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert right == 0.0  # ties go to the background


def test_background_alone_trains_only_the_colours() -> None:
    loss, right = zero_head().loss(torch.randn(2, 1, 8), torch.zeros(2, 4, 2, 6))
    assert loss.item() == pytest.approx(math.log(len(COLOURS) + 1), abs=1e-5)
    assert right == 0.0


def test_a_head_that_knows_costs_nothing() -> None:
    head = zero_head(patches=1)
    colour, category = 3, 5
    targets = torch.zeros(1, 1, 2, 6)
    targets[0, 0, :] = torch.tensor([colour, category, 0.1, 0.2, 0.3, 0.4])
    known = torch.zeros(2, len(COLOURS) + 1 + len(CATEGORIES) + 4)
    known[:, colour] = known[:, len(COLOURS) + 1 + category] = 50.0
    known[:, -4:] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    with torch.no_grad():
        head.auxiliary.bias.copy_(known.flatten())
    loss, right = head.loss(torch.randn(1, 1, 8), targets)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert right == 1.0


def test_each_patch_and_frame_of_a_token_has_its_own_output() -> None:
    head = DenseHead(8, 4)
    visual = torch.randn(1, 1, 8)
    for patch in range(4):
        for frame in range(2):
            targets = torch.zeros(1, 4, 2, 6)
            targets[0, patch, frame, 0] = 1
            (gradient,) = torch.autograd.grad(head.loss(visual, targets)[0], [head.auxiliary.bias])
            boxes = gradient.view(4, 2, -1)[..., -4:].abs().sum(dim=-1)
            assert boxes.nonzero().tolist() == [[patch, frame]]
