"""The flame graph shows the sampled stacks."""

from xml.etree.ElementTree import fromstring

from bench.flame_graph import build_tree, draw

STACKS = [
    "run (a/loop.py);ask (latchkey/dispatcher.py) 900",
    "run (a/loop.py);wait <b> (c/d.py) 99",
    "run (a/loop.py);seldom 1",
]


def test_frame_samples_include_callees() -> None:
    root = build_tree(STACKS)
    run = root.callees["run (a/loop.py)"]

    assert (root.samples, run.samples) == (1000, 1000)
    assert {name: frame.samples for name, frame in run.callees.items()} == {
        "ask (latchkey/dispatcher.py)": 900,
        "wait <b> (c/d.py)": 99,
        "seldom": 1,
    }


def test_flame_graph_draws_all_frames_above_the_minimum_share() -> None:
    image = fromstring(draw(build_tree(STACKS), "a title"))  # noqa: S314 - it is our own
    titles = [element.text for element in image.iter() if element.tag.endswith("title")]

    assert titles == [
        "all: 100.0%",
        "run (a/loop.py): 100.0%",
        "ask (latchkey/dispatcher.py): 90.0%",
        "wait <b> (c/d.py): 9.9%",
    ]
