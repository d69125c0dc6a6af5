"""What is printed: lines of any text, in any encoding, whatever Python does with warnings."""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from itrd_distill import lines
from itrd_distill.cli import main
from itrd_distill.report import Model, summarise, table
from itrd_distill.training.result import RunResult

ODD = "[red]T=4[/red] :smile: \\alpha_1 $x$ <b>ü"


def ascii_output(monkeypatch):
    """Makes standard output take ASCII alone; returns what tells what was written there."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)

    def written():
        stream.flush()
        return stream.buffer.getvalue().decode("ascii")

    return written


def run(method):
    return RunResult(method, 0, 0.5, 100.0, 7, [{"epoch": 0, "loss": 1.0, "test_accuracy": 0.5}])


def companion(*arguments, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\n\ttwo\r\nthree\n", "one two three"),
        ("a  b", "a  b"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        (OSError(2, "No such file", "x\ny"), r"[Errno 2] No such file: 'x\ny'"),
    ],
)
def test_a_line_is_one_line(text, shown):
    assert lines.line(text) == f"itrd-distill: {shown}"


def test_names_are_no_markup_in_lines_and_tables(capsys):
    lines.console().print(f"{ODD}, seed 0", soft_wrap=True)
    assert capsys.readouterr().out == f"{ODD}, seed 0\n"
    buffer = io.StringIO()
    # A console that takes markup, as one's own may.
    Console(file=buffer, width=200).print(table(f"on {ODD}", Model("t", 5), summarise([run(ODD)])))
    assert buffer.getvalue().count(ODD) == 2


def test_every_encoding_is_served(monkeypatch):
    written = ascii_output(monkeypatch)
    with lines.lines_alone():
        lines.console().print(table("a → b ✓", Model("t", 5, 0.5), summarise([run("mü\udcff")])))
        print("≥ ‖")
    printed = written()
    monkeypatch.undo()
    assert r"a \u2192 b \u2713" in printed
    assert r"m\xfc\udcff" in printed
    assert r"\u2265 \u2016" in printed


def test_help_is_printed_in_ascii(monkeypatch):
    written = ascii_output(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--help"])
    printed = " ".join(written().split())
    monkeypatch.undo()
    assert ended.value.code == 0
    assert r"Run methods \xd7 seeds" in printed


def test_warnings_are_lines_and_said_once(capsys):
    with lines.lines_alone():
        for _ in range(3):
            warnings.warn("slow\nand steady", stacklevel=1)
    assert capsys.readouterr().err == "itrd-distill: slow and steady\n"


def test_our_own_warnings_are_said_to_who_wants_none(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with lines.lines_alone():
            for module in ("itrd_kernels.backends", "somewhere.else"):
                warnings.warn_explicit(f"from {module}", UserWarning, "file.py", 1, module)
    assert capsys.readouterr().err == "itrd-distill: from itrd_kernels.backends\n"


def test_a_reader_that_leaves_ends_the_command_quietly():
    child = companion("-m", "itrd_distill", "recipes")
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(60) in (0, 141)
    child.stderr.close()


def test_a_full_disk_is_a_line(monkeypatch):
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w", encoding="utf-8"))  # noqa: SIM115
    with pytest.raises(SystemExit, match="itrd-distill: .*No space left on device"):
        main(["recipes", "digits"])
    monkeypatch.undo()


def test_the_backends_are_told_in_ascii():
    script = (
        "import itrd_kernels, itrd_kernels.__main__ as command;"
        "itrd_kernels.available_backends = lambda: {'x': '≥'}; command.main()"
    )
    child = companion("-c", script, PYTHONIOENCODING="ascii")
    printed, errors = child.communicate(timeout=60)
    assert rb"unavailable: \u2265" in printed, errors


@pytest.mark.slow
def test_a_run_in_the_c_locale_takes_any_name(tmp_path):
    few = ["--data.options.train_images", "100", "--trainer.epochs", "1", "--trainer.accelerator", "cpu"]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    folder = os.fsencode(tmp_path) + "/ünï ✓".encode() + b"\xff"
    child = companion("-m", "itrd_distill", "train", *few, "--method", ODD, "--out", folder, **locale)
    printed, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    assert b"[red]T=4[/red] :smile:" in printed
    assert errors.splitlines() == [line for line in errors.splitlines() if line.startswith(b"itrd-distill: ")]
    assert os.path.exists(folder + b"/run.json")
    assert "seed: 0" in Path(os.fsdecode(folder), "recipe.yaml").read_text("utf-8")
