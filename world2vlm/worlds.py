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
        outputs_may_be_sold: what is made from its frames may be used commercially.
        excluded_regions: where it may not be used, ISO 3166 alpha-2 codes, and EU.
        terms: the sentence that says so, with the address of the licence; empty where nothing is restricted.
        lanes: how many trajectories it makes at once, 1 where it owns a GPU; 0 = as many as the service has threads.
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
    outputs_may_be_sold: bool = True
    excluded_regions: tuple[str, ...] = ()
    terms: str = ""
    lanes: int = 0
