"""What is counted on a connection is the traffic on it."""

from tests.integration.database.postgresql_traffic import Count, TrafficCounter


def complete(tag: bytes) -> bytes:
    return b"C" + (len(tag) + 5).to_bytes(4) + tag + b"\0"


ANSWERS = complete(b"BEGIN") + b"D" + (300).to_bytes(4) + bytes(296) + complete(b"SELECT 1") + complete(b"COMMIT")


def test_a_statement_is_counted_once_however_its_answer_was_cut_on_the_way() -> None:
    whole, cut = TrafficCounter(), TrafficCounter()
    for counter in (whole, cut):
        counter.observe(b"ask", from_server=False)
        counter.observe(b"N", from_server=True)
        counter.observe(b"ask again", from_server=False)
    whole.observe(ANSWERS, from_server=True)
    for byte in ANSWERS:
        cut.observe(bytes([byte]), from_server=True)

    assert whole.count == cut.count == Count(transactions=1, statements=3, round_trips=2)


def test_what_is_said_before_the_server_answers_is_one_round_trip() -> None:
    counter = TrafficCounter()
    for said in (b"parse", b"bind", b"execute"):
        counter.observe(said, from_server=False)

    assert counter.count.round_trips == 1
