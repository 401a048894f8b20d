"""Tables and figures of the compressed variants, on made-up results."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measurements import write_measurements

from stages.errors import UserError
from stages.reporting import figures
from stages.reporting.compressed import Measurements, load_measurements, render


@pytest.fixture
def found(tmp_path: Path) -> Measurements:
    write_measurements(tmp_path)
    return load_measurements(tmp_path / "metrics", tmp_path / "data/eval/speed/summary.json", ("bert", "distilbert"))


def row(text: str, section: str, first: str) -> list[str]:
    block = text.split(f"### {section}\n")[1].split("\n### ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return next(cells for cells in lines if cells[0] == first)


def test_sizes_and_speeds_stand_beside_the_first_variant(found: Measurements) -> None:
    text = render(found)
    assert row(text, "Size", "PyTorch, INT8") == ["PyTorch, INT8", "1,234,567", "10.0 %", "90.00", "0.90", "80.00"]
    speed = row(text, "Speed and memory", "ONNX, INT8")
    assert speed[1:] == ["55", "12.0", "2.7", "10.7", "21.3", "4.0 to 6.5", "11.7", "6.00x", "60.0", "200.0"]
    assert "A Processor, 1 thread of 2 cores (avx2 avx512_vnni); torch 2.13.0, onnxruntime 1.32.0." in text
    assert "Pruned: magnitude, amount 0.3." in text


def test_int8_task_models_stand_beside_their_float_ones(found: Measurements) -> None:
    text = render(found)
    float_row, int8_row = (
        row(text, "Task models in ONNX Runtime", name) for name in ("sst2 baseline\u00b9", "sst2 baseline int8\u00b9")
    )
    assert float_row[1:] == ["8.00", "accuracy 0.9000", "\u2013", "\u2013"]
    assert int8_row[1:] == ["2.00", "accuracy 0.9000", "98.5 %", "-0.0300 to +0.0100"]
    assert "generated, not the published data." in text


def test_the_teacher_s_speed_is_the_measure_of_the_student_s(found: Measurements) -> None:
    assert row(render(found), "Speed of teacher and student", "DistilBERT")[-2:] == ["4.00", "2.00x"]
    assert row(render(found), "Speed of teacher and student", "BERT")[-1] == "1.00x"


def test_published_rows_stand_beside_models_of_their_size_only(found: Measurements) -> None:
    assert "PyTorch, INT8, published" not in render(found)
    for row_ in found.compression.values():
        row_["parameters"] = 66_985_530
    assert row(render(found), "Size", "PyTorch, INT8, published: reproduction")[3:5] == ["154.77", "0.61"]
    assert row(render(found), "Speed of teacher and student", "DistilBERT, published: reproduction")[-1] == "2.08x"
    size = found.compression["quantized"]["size_mb"] - 154.77
    assert row(render(found), "Size", "PyTorch, INT8 here minus published: reproduction")[3] == f"{size:+.2f}"
    ratio = found.speed["bert"]["inference_seconds"] / found.speed["distilbert"]["inference_seconds"] - 71.24 / 34.23
    faster = row(render(found), "Speed of teacher and student", "DistilBERT here minus published: reproduction")
    assert faster[-1] == f"{ratio:+.2f}"


def test_losses_of_every_variant_are_shown(found: Measurements) -> None:
    assert row(render(found), "Quality", "PyTorch, pruned")[1:] == ["5.0000", "3.0000", "0.1000", "0.5000"]


def test_a_missing_result_is_named(tmp_path: Path, found: Measurements) -> None:
    (tmp_path / "metrics/quality/combined.json").unlink()
    with pytest.raises(UserError, match=r"quality/combined.json: not found; `dvc repro` makes it"):
        load_measurements(tmp_path / "metrics", tmp_path / "data/eval/speed/summary.json", ("bert", "distilbert"))


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
