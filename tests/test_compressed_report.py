"""Tables and figures of the compressed variants, on made-up results."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measurements import GENERATED, write_measurements
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.params import validate
from stages.reporting import figures
from stages.reporting.compressed import Making, Measurements, load_measurements
from stages.reporting.compression_answers import gains
from stages.reporting.exported import Exported
from stages.reporting.folding import unfold
from stages.reporting.variant_tables import render

ROOT = Path(__file__).resolve().parents[1]
MADE = Making(source="hub", kl_tokens="all", random=False, training="fp32")
DASH = "\u2013"


@pytest.fixture
def found(tmp_path: Path) -> Measurements:
    write_measurements(tmp_path)
    return load(tmp_path, MADE)


def load(folder: Path, making: Making) -> Measurements:
    return load_measurements(folder / "metrics", folder / "data", ("bert", "distilbert"), ("SST-2",), making)


def of_published_size(found: Measurements) -> Measurements:
    """The same with as many parameters as the published student."""
    for row_ in found.compression.values():
        row_["parameters"] = 66_985_530
    return found


def row(text: str, section: str, first: str) -> list[str]:
    block = text.split(f"### {section}\n")[1].split("\n### ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return next(cells for cells in lines if cells[0] == first)


@pytest.mark.parametrize(
    ("distillation", "evaluation", "told"),
    [(None, None, "threads: 2"), (1, 2, "threads: 2, of distillation 1"), (None, 1, "threads: 2, of an evaluation 1")],
)
def test_threads_of_their_own_are_told(distillation: int | None, evaluation: int | None, told: str) -> None:
    values = YAML(typ="safe", pure=True).load(ROOT / "profiles/tiny.yaml")
    values["distill"]["threads"], values["finetune"]["threads"] = distillation, evaluation
    assert Making.of(validate(values)).training == f"precision auto; {told}"


def test_sizes_and_speeds_stand_beside_the_first_variant(found: Measurements) -> None:
    text = render(found)
    assert row(text, "Size", "PyTorch, INT8") == ["PyTorch, INT8", "1,234,567", "10.0 %", "90.00", "0.90", "80.00"]
    speed = row(text, "Speed and memory", "ONNX, INT8")
    assert speed[1:] == ["55", "12.0", "2.7", "10.7", "21.3", "4.0 to 6.5", "11.7", "6.00x", "60.0", "6.00x", "200.0"]
    assert "Linux x86_64; torch 2.13.0, onnxruntime 1.32.0. Each model in 4 fresh processes, " in text
    assert "Pruned: magnitude, amount 0.3." in text


def test_int8_task_models_stand_beside_their_float_ones(found: Measurements) -> None:
    text = render(found)
    float_row, int8_row = (
        row(text, "Task models in ONNX Runtime", name) for name in ("SST-2\u00b9", "SST-2, INT8\u00b9")
    )
    assert float_row[1:] == ["8.00", "accuracy 0.9000", *["\u2013"] * 5]
    assert int8_row[1:] == ["2.00", "accuracy 0.9000", "98.5 %", "-0.0100", "-0.0300 to +0.0100", "-0.0081", "-0.0019"]
    assert f"\u00b9 SST-2: {GENERATED}." in text


def test_a_score_of_squad_has_two_decimals_and_the_others_four(found: Measurements) -> None:
    row_ = {"size_mb": 8.0, "scores": {"exact_match": 35.7512, "f1": 37.8951}, "note": "", "max_abs_difference": 1e-6}
    change = {
        "relative_error": 0.02,
        "agreement": 0.93,
        "difference": 0,
        "difference_low": -2.31,
        "difference_high": 0.0,
    }
    text = render(
        dataclasses.replace(
            found, onnx={Exported("SQuAD", "pruned", False): row_, Exported("SQuAD", "pruned", True): row_ | change}
        )
    )
    shown = row(text, "Task models in ONNX Runtime", "SQuAD, pruned, INT8")
    assert shown[2:] == ["exact_match 35.75, f1 37.90", "93.0 %", "+0.00", "-2.31 to +0.00", *["\u2013"] * 2]


def test_every_exported_model_stands_with_its_errors_in_both_runtimes(found: Measurements) -> None:
    text, section = render(found), "How close ONNX and INT8 are"
    assert row(text, section, "student\u00b9")[1:] == ["1.2e-05", "7.2 %", "98.8 %", "15.0 %", "99.4 %"]
    assert row(text, section, "student, pruned\u00b9")[1:] == row(text, section, "student\u00b9")[1:]
    assert row(text, section, "SST-2\u00b9")[1:] == ["1.3e-06", "7.7 %", "98.5 %", DASH, DASH]


MARKED = {  # a heading or row whose figures are of data
    "Speed of teacher and student": "Seconds",
    "Quality": "MLM loss",
    "How close ONNX and INT8 are": "student, pruned",
    "Task models in ONNX Runtime": "SST-2, INT8",
}


@pytest.mark.parametrize("note", [GENERATED, "cut: 1,000 of 5,749 training rows", ""])
def test_figures_of_data_that_are_not_official_are_marked(tmp_path: Path, note: str) -> None:
    write_measurements(tmp_path, note)
    found = load(tmp_path, MADE)
    parts = {title: " ".join(body.split()) for title, body in unfold(render(found)).items()}
    mark, footnote = ("\u00b9", f": {note}.") if note else ("", "")
    for title, name in MARKED.items():
        assert f"| {name}{mark} |" in parts[title]
        assert footnote in parts[title]
    assert f"| MLM loss{mark} |" in gains(found)
    if note:
        assert not any(note in parts[title] for title in ("Size", "Speed and memory"))  # of weights and random tokens


def test_the_teacher_s_speed_is_the_measure_of_the_student_s(found: Measurements) -> None:
    assert row(render(found), "Speed of teacher and student", "DistilBERT")[-2:] == ["4.00", "2.00x"]
    assert row(render(found), "Speed of teacher and student", "BERT")[-1] == "1.00x"


def test_beside_a_model_of_another_size_only_ratios_are_published(found: Measurements) -> None:
    text = render(found)
    assert row(text, "Size", "PyTorch, INT8, published: reproduction, ratios only\u00b9")[3:5] == [DASH, "0.61"]
    assert row(text, "Size", "PyTorch, INT8 here minus published: reproduction")[3:5] == [DASH, "+0.29"]
    faster = row(text, "Speed and memory", "PyTorch, INT8, published: reproduction, ratios only\u00b9")
    assert faster[1:] == [*[DASH] * 9, "1.66x", DASH]
    paper = row(text, "Speed of teacher and student", "DistilBERT, published: Sanh et al. 2019, ratios only\u00b2")
    assert paper[1:] == [DASH, "0.60", DASH, DASH, "1.63x"]
    assert "published:" not in text.split("### Quality")[1]  # a loss is no ratio
    assert "\u00b9 ratios only: another model" in text


def test_of_the_published_size_every_published_figure_stands_beside_ours(found: Measurements) -> None:
    for one in found.speed.values():
        one["samples"] = 1000
    text = render(of_published_size(found))
    assert row(text, "Size", "PyTorch, INT8, published: reproduction")[3:5] == ["154.77", "0.61"]
    size = found.compression["quantized"]["size_mb"] - 154.77
    assert row(text, "Size", "PyTorch, INT8 here minus published: reproduction")[3] == f"{size:+.2f}"
    first = row(text, "Speed and memory", "PyTorch, published: reproduction\u00b9")
    assert first[2] == "15.51"
    assert first[-3:] == ["82.33", DASH, "60.70"]  # the peak memory of the first alone means anything
    assert row(text, "Speed and memory", "PyTorch, pruned, published: reproduction")[-3:] == ["82.82", "1.01x", DASH]
    assert "only the first is meaningful" in text
    passes = row(text, "Speed of teacher and student", "DistilBERT, published: reproduction")
    assert passes[-2:] == ["34.23", "2.08x"]
    assert row(text, "Speed of teacher and student", "BERT-base, published: reproduction")[-2:] == ["71.24", DASH]
    ratio = found.speed["bert"]["inference_seconds"] / found.speed["distilbert"]["inference_seconds"] - 71.24 / 34.23
    faster = row(text, "Speed of teacher and student", "DistilBERT here minus published: reproduction")
    assert faster[-2:] == [f"{4 - 34.23:+.2f}", f"{ratio:+.2f}x"]
    assert row(text, "Quality", "PyTorch, published: reproduction")[1:4] == ["6.6854", "7.6096", "0.2679"]
    assert row(text, "Quality", "PyTorch here minus published: reproduction")[1] == f"{3 - 6.6854:+.4f}"


def test_seconds_over_another_number_of_pairs_are_not_compared(found: Measurements) -> None:
    text = render(of_published_size(found))
    assert (
        row(text, "Speed of teacher and student", "DistilBERT, published: reproduction, ratios only\u00b2")[4] == DASH
    )
    for one in found.speed.values():
        one["samples"] = 1500
    assert row(render(found), "Speed of teacher and student", "DistilBERT, published: Sanh et al. 2019")[4] == "410.00"


@pytest.mark.parametrize(
    ("making", "columns"),
    [
        (Making("hub", "masked", False, "fp32"), ["6.6854", DASH, "0.2679"]),  # the published KL saw all tokens
        (Making("embedded", "all", False, "fp32"), None),
        (Making("hub", "all", True, "fp32"), None),
    ],
)
def test_losses_are_compared_within_their_convention_and_kind_of_text(
    tmp_path: Path, found: Measurements, making: Making, columns: list[str] | None
) -> None:
    text = render(of_published_size(load(tmp_path, making)))
    if columns is None:
        assert "published:" not in text.split("### Quality")[1]
    else:
        assert row(text, "Quality", "PyTorch, published: reproduction")[1:4] == columns
    assert ("say nothing about quality" in text) == making.random


def test_losses_of_every_variant_are_shown_with_what_they_differ_by(found: Measurements) -> None:
    text = render(found)
    shown = row(text, "Quality", "PyTorch, pruned")[1:]
    assert shown == ["5.0000", "3.0000", "0.1000", "0.5000", "+1.5000 to +2.5000", "+0.0 to +0.0"]
    assert "400 masked tokens" in text


def test_a_missing_result_is_named(tmp_path: Path, found: Measurements) -> None:
    (tmp_path / "metrics/quality/combined.json").unlink()
    with pytest.raises(UserError, match=r"quality/combined.json: not found; `dvc repro` makes it"):
        load(tmp_path, MADE)


def test_figures_are_files_that_do_not_change_with_the_clock(tmp_path: Path, found: Measurements) -> None:
    names = ["latency.png", "latency.svg", "pareto.png", "pareto.svg"]
    contents = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        figures.pareto(found, [tmp_path / run / "pareto.png", tmp_path / run / "pareto.svg"])
        figures.latency(found, [tmp_path / run / "latency.png", tmp_path / run / "latency.svg"])
        assert sorted(path.name for path in (tmp_path / run).iterdir()) == names
        contents.append([(tmp_path / run / name).read_bytes() for name in names])
    assert contents[0] == contents[1]


def test_the_front_is_what_nothing_beats_in_all() -> None:
    small, good, beaten = (1.0, 1.0, 3.0), (2.0, 1.0, 1.0), (2.0, 2.0, 1.0)
    assert figures.front([small, good, beaten, good]) == {small, good}


@given(st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), min_size=1))
def test_everything_off_the_front_is_beaten_by_something_on_it(points: list[tuple[float, float, float]]) -> None:
    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return bool(one != other and np.all(np.less_equal(one, other)))

    front = figures.front(points)
    assert not any(beats(one, other) for one in front for other in front)
    assert all(any(beats(one, point) for one in front) for point in set(points) - front)
