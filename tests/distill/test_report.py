"""The page's figures, from runs whose answer is known."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from itrd_distill.report import summarise
from itrd_distill.report.page import Experiment, Model, headline, write_page, write_plots
from itrd_distill.report.plots import Sweep
from itrd_distill.report.styles import styles
from itrd_distill.training.result import RunResult


def run(method, seed, accuracy, speed=1000.0, **terms):
    history = [{"epoch": e, "loss": 2.0 - e, "test_accuracy": accuracy - 0.1 * (1 - e), **terms} for e in (0, 1)]
    return RunResult(method, seed, accuracy, speed, 1234, history)


def test_summary_is_mean_and_sample_deviation():
    runs = [run("none", 0, 0.5, 100.0), run("kd", 0, 0.75), run("none", 1, 0.75, 300.0), run("none", 2, 1.0, 200.0)]
    none, kd = summarise(runs)
    assert (none.method, none.seeds, none.parameters) == ("none", 3, 1234)
    assert none.test_accuracy == pytest.approx((0.75, 0.25))
    assert none.images_per_second == pytest.approx((200.0, 100.0))
    assert kd.test_accuracy == (0.75, 0.0)


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ({"none": [0.90, 0.91], "itrd": [0.95, 0.96]}, "5.00 points behind, more than chance"),
        ({"none": [0.90, 0.94], "itrd": [0.91, 0.96]}, "1.50 points behind, no more than chance"),
        ({"none": [0.9], "itrd": [0.95]}, "one seed says nothing of chance"),
    ],
)
def test_headline_weighs_the_gap_against_the_seeds(accuracies, verdict):
    summaries = summarise([run(m, s, a) for m, values in accuracies.items() for s, a in enumerate(values)])
    text = headline(summaries, styles(list(accuracies)))
    assert text.startswith("ITRD, correlation + MI comes out best")
    assert verdict in text


def test_page_escapes_and_counts(tmp_path):
    runs = [run("none", 0, 0.9, cross_entropy=0.5), run("my<method>", 0, 0.95, cross_entropy=0.4, mine=1.0)]
    experiment = Experiment("A & B", "data", Model("t", 5), Model("s", 3), runs, test_images=200, settings={"x": "<y>"})
    write_page(experiment, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "A &amp; B" in page
    assert "<y>" not in page
    assert "<method>" not in page
    assert "one image is 0.50 points" in page
    assert page.count("<figure") == 4  # accuracy, speed, cross-entropy, and the term that only one method has
    assert ">+5.00<" in page


def test_plots_name_their_methods_as_files_of_their_own(tmp_path):
    runs = [run("none", 0, 0.9, cross_entropy=0.5), run("my<method>", 0, 0.95, cross_entropy=0.4)]
    write_plots(Experiment("A", "data", Model("t", 5), Model("s", 3), runs, test_images=200, settings={}), tmp_path)
    for name in ("accuracy", "speed", "cross_entropy"):
        drawing = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        texts = {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}
        assert {"Cross-entropy alone", "my<method>"} <= texts
        assert "var(--" not in (tmp_path / f"{name}.svg").read_text()


def test_methods_keep_their_look_whatever_stands_beside_them():
    alone, beside = styles(["itrd"]), styles(["new", "kd", "itrd"])
    assert alone["itrd"] == beside["itrd"]
    assert len({style.variable for style in beside.values()}) == 3


def test_text_of_users_is_never_markup(tmp_path):
    """HTML, SVG and mathtext: what looks like them stands there as it was given, in the page and in the files."""
    odd = '"><script>alert(1)</script> $x^2$ {{ 7 * 7 }} &lt; [b] \\alpha'
    runs = [run("none", 0, 0.9, cross_entropy=0.5), run(odd, 0, 0.95, cross_entropy=0.4)]
    sweep = Sweep(odd, {"none": 1.0, odd: 2.0})
    teacher, student = Model(odd, 5, 0.9), Model(odd, 3)
    experiment = Experiment(
        odd, odd, teacher, student, runs, 200, notes=[odd], sweep=sweep, settings={odd: odd}, versions={odd: odd}
    )
    write_page(experiment, tmp_path / "page.html")
    write_plots(experiment, tmp_path)

    class Reader(HTMLParser):
        tags, text = set(), ""

        def handle_starttag(self, tag, attributes):
            self.tags.add(tag)

        def handle_data(self, data):
            self.text += data

    reader = Reader()
    reader.feed((tmp_path / "page.html").read_text("utf-8"))
    assert "script" not in reader.tags
    # Title twice, data set, models, headline, table, notes, settings and versions, legend, the sweep's title and axis.
    assert reader.text.count(odd) >= 12
    drawing = ElementTree.parse(tmp_path / "sweep.svg").getroot()
    assert [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")].count(odd) == 2


def test_a_name_that_no_encoding_holds_is_written_all_the_same(tmp_path):
    runs = [run("m\udcff", 0, 0.9, cross_entropy=0.5)]
    experiment = Experiment("A", "data", Model("t", 5), Model("s", 3), runs, test_images=200)
    write_page(experiment, tmp_path / "page.html")
    write_plots(experiment, tmp_path)
    for path in tmp_path.iterdir():
        assert r"m\udcff" in path.read_text("utf-8")
