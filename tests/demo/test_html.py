"""Charts."""

from xml.etree import ElementTree

from ddpm.demo.html import Line, chart


def test_charts_are_whole_svg():
    line = Line("a", [(1, 1e-3), (2, 0.0), (5, float("inf"))])
    figure = chart("x<sub>t</sub>", [line, line], log=True, mark=2)
    svg = ElementTree.fromstring(figure[figure.index("<svg") : figure.index("</svg>") + 6])
    assert svg.get("aria-label") == "xt"
    assert len(svg.findall("circle")) == 2
    assert "nothing yet" in chart("empty", [Line("a", [])])
    zero = Line("b", [(1, 0.0), (2, 1e-3), (3, 1e-1)])
    assert "1e-03" in chart("x", [zero], log=True, mark=1)
    assert "1e-12" not in chart("x", [zero], log=True, mark=1)
    assert "polyline" in chart("x", [zero, Line("c", [(1, 0.0)])], log=True, mark=1)
