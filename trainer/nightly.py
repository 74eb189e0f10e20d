"""Which round a night gets, by the settings."""

import logging
from datetime import date

from trainer.gathering import gather
from trainer.plans import nightly_plan
from world2vlm.rounds import RoundPlan
from world2vlm.settings import TrainerSettings
from world2vlm.store import Store

_log = logging.getLogger(__name__)


def plan_of_night(settings: TrainerSettings, store: Store, day: date) -> RoundPlan:
    """The round of a night; its photographs' folder is gathered anew, so that those of the day are in it.

    Raises:
        InvalidInputError: the folder has nothing to make a round on, or the world takes no photographs.
    """
    photos = ""
    if settings.nightly_photos is not None:
        gathered = gather(store, settings.nightly_photos, settings.nightly_fov_deg)
        for line in gathered.summary:
            _log.info("%s: %s", settings.nightly_photos, line)
        photos = gathered.collection.digest
    return nightly_plan(settings.student, day, settings.nightly_world, photos)
