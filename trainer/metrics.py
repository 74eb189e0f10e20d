"""The trainer's Prometheus metrics, read at each scrape: how many pieces wait and how many rounds there are."""

from collections import Counter
from collections.abc import Iterable

import redis
from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.registry import Collector

from trainer.pieces import QUEUES, next_step
from world2vlm.rounds import RoundState, list_rounds
from world2vlm.store import Store


class TrainerCollector(Collector):
    """`world2vlm_pieces_waiting{queue}` and `world2vlm_rounds{step}`."""

    def __init__(self, store: Store, redis_url: str) -> None:
        self._store = store
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=5)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read queues and rounds now; a broker that is away has no sample."""
        waiting = GaugeMetricFamily("world2vlm_pieces_waiting", "Messages in a queue.", labels=["queue"])
        try:
            for queue in QUEUES:
                waiting.add_metric([queue], self._redis.llen(queue))
        except redis.exceptions.RedisError:
            waiting.samples.clear()
        yield waiting
        rounds = GaugeMetricFamily("world2vlm_rounds", "Rounds, by their next step.", labels=["step"])
        steps = Counter(next_step(RoundState(self._store, name)) for name in list_rounds(self._store))
        for step, count in sorted(steps.items()):
            rounds.add_metric([step], count)
        yield rounds


def register_metrics(store: Store, redis_url: str) -> None:
    """Add the trainer's metrics to what this process serves."""
    REGISTRY.register(TrainerCollector(store, redis_url))
