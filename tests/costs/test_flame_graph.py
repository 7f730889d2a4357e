"""Where the time goes is drawn as it was seen."""

from xml.etree.ElementTree import fromstring

from bench.flame_graph import grown, picture

STACKS = [
    "run (a/loop.py);ask (latchkey/door.py) 900",
    "run (a/loop.py);wait <b> (c/d.py) 99",
    "run (a/loop.py);seldom 1",
]


def test_a_frame_holds_the_time_of_all_that_it_called() -> None:
    root = grown(STACKS)
    run = root.callees["run (a/loop.py)"]

    assert (root.samples, run.samples) == (1000, 1000)
    assert {name: frame.samples for name, frame in run.callees.items()} == {
        "ask (latchkey/door.py)": 900,
        "wait <b> (c/d.py)": 99,
        "seldom": 1,
    }


def test_the_picture_names_every_frame_but_those_too_narrow_to_see() -> None:
    drawn = fromstring(picture(grown(STACKS), "a title"))  # noqa: S314 - it is our own
    titles = [element.text for element in drawn.iter() if element.tag.endswith("title")]

    assert titles == [
        "all: 100.0%",
        "run (a/loop.py): 100.0%",
        "ask (latchkey/door.py): 90.0%",
        "wait <b> (c/d.py): 9.9%",
    ]
