"""What is counted on a wire is what was said on it."""

from tests.integration.database.talk import Count, Talk


def complete(tag: bytes) -> bytes:
    return b"C" + (len(tag) + 5).to_bytes(4) + tag + b"\0"


ANSWERS = complete(b"BEGIN") + b"D" + (300).to_bytes(4) + bytes(296) + complete(b"SELECT 1") + complete(b"COMMIT")


def test_a_statement_is_counted_once_however_its_answer_was_cut_on_the_way() -> None:
    whole, cut = Talk(), Talk()
    for talk in (whole, cut):
        talk.hear(b"ask", by_server=False)
        talk.hear(b"N", by_server=True)
        talk.hear(b"ask again", by_server=False)
    whole.hear(ANSWERS, by_server=True)
    for byte in ANSWERS:
        cut.hear(bytes([byte]), by_server=True)

    assert whole.count == cut.count == Count(transactions=1, statements=3, round_trips=2)


def test_what_is_said_before_the_server_answers_is_one_round_trip() -> None:
    talk = Talk()
    for said in (b"parse", b"bind", b"execute"):
        talk.hear(said, by_server=False)

    assert talk.count.round_trips == 1
