"""What a world says about itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorldInfo:
    """A teacher backend, as `DescribeTeacher` and the bundles name it.

    Attributes:
        name: what requests call it.
        description: one sentence.
        metric: translations are in true metres.
        generative: frames may show things that no measurement backs.
        takes_scenes, takes_photos: the anchors it accepts.
        licence: SPDX identifier or name, of the weights and of what they may produce.
        outputs_may_train: its frames may be used to train other models.
        digest: sha256 of the weights, or of the source that acts as weights.
    """

    name: str
    description: str
    metric: bool
    generative: bool
    takes_scenes: bool
    takes_photos: bool
    licence: str
    outputs_may_train: bool
    digest: str
