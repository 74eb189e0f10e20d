"""Start a round from any process: the plan goes into the store, and a worker is told if one can be reached."""

from dataclasses import dataclass

from redis.exceptions import RedisError

from trainer.plans import create_round
from trainer.sources import AnchorKind
from world2vlm.broker import broker_folder, running_url
from world2vlm.errors import PreconditionError, UnavailableError
from world2vlm.rounds import RoundPlan
from world2vlm.settings import Settings
from world2vlm.store import Store

_PATIENCE_S = 10.0


def check_world(settings: Settings, name: str, kind: AnchorKind) -> bool:
    """Ask the teacher whether it has a world, before a round is stored that would stop at its first piece.

    Returns:
        Whether a teacher answered; where none does, the worker's will say so.

    Raises:
        NotFoundError: the teacher has no such world; names those that it has.
        InvalidInputError: it does not take such anchors.
    """
    from trainer.services import TeacherService

    try:
        TeacherService(settings, _PATIENCE_S).world(name, kind)
    except UnavailableError:
        return False
    return True


@dataclass(frozen=True)
class Submitted:
    """What came of starting a round.

    Attributes:
        is_new: whether it was not there already.
        is_sent: whether a broker took the message. If not, the round begins when a worker starts or reconciles.
    """

    is_new: bool
    is_sent: bool


def submit(store: Store, redis_url: str | None, plan: RoundPlan) -> Submitted:
    """Create a round; starting the same one twice changes nothing.

    Raises:
        PreconditionError, InvalidInputError: see `create_round`.
    """
    from kombu.exceptions import OperationalError

    from trainer.celery_app import make_celery
    from trainer.tasks import send_advance

    is_new = create_round(store, plan)
    url = redis_url or _embedded_url(store)
    if url is None:
        return Submitted(is_new, False)
    try:
        send_advance(make_celery(url), plan.id)
    except (OperationalError, RedisError):
        return Submitted(is_new, False)
    return Submitted(is_new, True)


def _embedded_url(store: Store) -> str | None:
    try:
        return running_url(broker_folder(store.root))
    except PreconditionError:
        return None
