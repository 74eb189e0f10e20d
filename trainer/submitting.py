"""Start a round from any process: the plan goes into the store, and a worker is told if one can be reached."""

from redis.exceptions import RedisError

from trainer.plans import create_round
from world2vlm.broker import broker_folder, running_url
from world2vlm.errors import PreconditionError
from world2vlm.rounds import RoundPlan
from world2vlm.store import Store


def submit(store: Store, redis_url: str | None, plan: RoundPlan) -> bool:
    """Create a round; starting the same one twice changes nothing.

    Returns:
        Whether a broker took the message. If not, the round begins when a worker starts or reconciles.

    Raises:
        PreconditionError, InvalidInputError: see `create_round`.
    """
    from kombu.exceptions import OperationalError

    from trainer.celery_app import make_celery
    from trainer.tasks import send_advance

    create_round(store, plan)
    url = redis_url or _embedded_url(store)
    if url is None:
        return False
    try:
        send_advance(make_celery(url), plan.id)
    except (OperationalError, RedisError):
        return False
    return True


def _embedded_url(store: Store) -> str | None:
    try:
        return running_url(broker_folder(store.root))
    except PreconditionError:
        return None
