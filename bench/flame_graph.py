"""Draws a flame graph of sampled stacks as SVG, without scripts or links."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple
from zlib import crc32

WIDTH, ROW, LETTER = 1400, 16, 6.3
HEAD = 44
MINIMUM_SHARE = 0.003
"""Frames with a smaller share are not drawn; their time is included in their caller."""

_LATCHKEY = "#f28e2b"
_OTHERS = ("#a0cbe8", "#8cd17d", "#d4a6c8", "#f1ce63", "#86bcb6", "#fabfd2", "#b6992d", "#d7b5a6", "#9d7660", "#79b7b2")
_LEGEND = (
    "From the top down: who called whom. As wide as its share of the time. Orange is Latchkey; other colours are other"
    " packages. Point at a frame for its name."
)
_SHAPE = ".f{font:11px monospace} text{pointer-events:none} rect:hover{stroke:#000}"


@dataclass
class Frame:
    """A function at one place of the call tree. `samples` include those of its callees."""

    name: str
    samples: int = 0
    callees: dict[str, "Frame"] = field(default_factory=dict)


class Box(NamedTuple):
    frame: Frame
    start: int
    depth: int


def build_tree(stacks: Iterable[str]) -> Frame:
    """Build the call tree from lines of py-spy: the frames from the outermost one, and the number of samples."""
    root = Frame("all")
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        at = root
        at.samples += int(count)
        for name in frames.split(";"):
            at = at.callees.setdefault(name, Frame(name))
            at.samples += int(count)
    return root


def draw(root: Frame, title: str) -> str:
    boxes = list(_boxes(root, Box(root, 0, 0)))
    height = HEAD + ROW * (1 + max(box.depth for box in boxes)) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f'<style>{_SHAPE}</style><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="8" y="18" style="font:bold 14px sans-serif">{escape(title)}</text>',
        f'<text x="8" y="35" style="font:11px sans-serif">{_LEGEND}</text>',
        *(_draw_box(box, root.samples) for box in boxes),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _boxes(root: Frame, box: Box) -> Iterator[Box]:
    yield box
    start = box.start
    for frame in sorted(box.frame.callees.values(), key=lambda callee: -callee.samples):
        if frame.samples >= MINIMUM_SHARE * root.samples:
            yield from _boxes(root, Box(frame, start, box.depth + 1))
        start += frame.samples


def _draw_box(box: Box, samples: int) -> str:
    scale = WIDTH / samples
    x, y, width = box.start * scale, HEAD + ROW * box.depth, box.frame.samples * scale
    name, share = box.frame.name, box.frame.samples / samples
    letters = int((width - 4) / LETTER)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…"
    text = f'<text class="f" x="{x + 2:.1f}" y="{y + 12}">{escape(shown)}</text>' if letters > 2 else ""  # noqa: PLR2004
    rect = f'<rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" fill="{_colour(name)}">'
    return f"{rect}<title>{escape(name)}: {share:.1%}</title></rect>{text}"


def _colour(name: str) -> str:
    """One colour per package: the part before the first slash of `function (package/module.py)`."""
    package = name.rpartition("(")[2].partition("/")[0]
    return _LATCHKEY if package == "latchkey" else _OTHERS[crc32(package.encode()) % len(_OTHERS)]
