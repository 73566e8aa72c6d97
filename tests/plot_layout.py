"""Check that the texts of a figure are inside it and do not overlap."""

from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def text_boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Return the visible texts of a figure with their boxes, without the labels of ticks beyond the limits."""
    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.findobj(lambda artist: hasattr(artist, "xaxis")):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = 1e-6 * (high - low if axis.get_scale() == "linear" else low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - margin <= tick.get_loc() <= high + margin or not axes.get_visible():
                    hidden |= {tick.label1, tick.label2}
            if not axes.axison:
                hidden |= set(axis.findobj(Text))
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text not in hidden]
    assert not figure.findobj(AnnotationBbox)
    # not the line of an annotation
    return [(text.get_text(), Text.get_window_extent(text)) for text in texts if text.get_text().strip()]


def check_layout(figure: Figure) -> None:
    """Assert that no text leaves the figure or lies on another."""
    boxes = text_boxes(figure)
    assert boxes
    width, height = figure.bbox.width, figure.bbox.height
    for index, (text, box) in enumerate(boxes):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text!r} leaves the figure: {box.extents.round()} of {width:.0f} x {height:.0f}"
        for other, other_box in boxes[:index]:
            wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert min(wide, high) < 1.5, f"{text!r} lies on {other!r}"
