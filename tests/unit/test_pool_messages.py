"""What a pool and its workers tell each other."""

from student_service.engines.base import Query
from student_service.engines.messages import Ask, read_asks, unpack, write_asks

_SIZE = 10_000


def test_queries_arrive_as_they_were_sent_and_pictures_they_share_only_once() -> None:
    first, second = b"a" * _SIZE, b"b" * _SIZE
    queries = [
        Query((first, second), "Which way?", "A1"),
        Query((first, second), "Is the mug there?", ""),
        # The same content, elsewhere in memory.
        Query((bytes(bytearray(first)), bytes(bytearray(second))), "And the cup?", ""),
        Query((second,), "Where is it?", "D1"),
        Query((), "Nothing to be seen?", ""),
    ]
    asks = [Ask(number, query, 8 + number, number % 2 == 0) for number, query in enumerate(queries)]
    message = write_asks(asks)
    assert read_asks(*unpack(message)) == asks
    assert 3 * _SIZE < len(message) < 4 * _SIZE
