"""The table of Android devices on made-up rows."""

from typing import Any

from stages.measurement.variants import ONNX_MODELS
from stages.reporting.devices import render

UNMEASURED = {"status": "not measured", "size_mb": 12.35}
MEASURED: dict[str, Any] = {
    "status": "measured",
    "size_mb": 12.35,
    "avg_ms": 40.5,
    "p50_ms": 40.0,
    "p90_ms": 44.25,
    "tokens_per_second": 1580.2,
    "peak_memory_mb": 88.8,
    "top1_agreement": 0.984,
    "device_kind": "phone",
    "device": "A Phone <1>",
    "onnxruntime": "1.32.0",
    "runtime_build": "android-aar",
    "protocol": "quick",
    "threads": 1,
    "batch": 1,
    "length": 64,
}


def row(text: str, first: str) -> list[str]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return next(cells for cells in lines if cells[0] == first)


def test_without_a_device_the_table_says_so_and_how_to_measure() -> None:
    text = render(dict.fromkeys(ONNX_MODELS, UNMEASURED), False)
    assert row(text, "fp32")[1:3] == ["12.35", "not measured"]
    assert "`make android-bench`" in text


def test_published_figures_stand_below_and_are_labelled() -> None:
    text = render(dict.fromkeys(ONNX_MODELS, UNMEASURED), True)
    published = row(text, "INT8, published: reproduction, emulator")
    assert published[1:7] == ["86.71", "51.12", "51.05", "51.24", "0.25", "3.21x"]


def test_beside_a_model_of_another_size_only_ratios_were_published() -> None:
    rows = {**dict.fromkeys(ONNX_MODELS, MEASURED), "distilbert_baseline": MEASURED | {"p50_ms": 100.0}}
    text = render(rows, False)
    assert row(text, "INT8, published: reproduction, emulator, ratios only\u00b9")[1:7] == [
        *["\u2013"] * 4,
        "0.25",
        "3.21x",
    ]
    assert row(text, "INT8 here minus published: reproduction, emulator")[5:7] == ["+0.75", "-0.71x"]
    assert "fp32, published" not in text
    assert "\u00b9 ratios only: another model" in text


def test_a_measured_row_names_its_device_and_that_it_was_a_quick_look() -> None:
    text = render({**dict.fromkeys(ONNX_MODELS, UNMEASURED), "distilbert_baseline_int8": MEASURED}, False)
    assert row(text, "INT8")[2:] == ["40.50", "40.00", "44.25", "1.00", "\u2013", "1580", "88.8", "98.4 %"]
    assert "Phone: A Phone <1>, ONNX Runtime 1.32.0 (android-aar), 1 thread, 1 x 64 tokens, a quick look." in text


def test_rows_of_different_devices_name_their_own() -> None:
    rows: dict[str, Any] = dict.fromkeys(ONNX_MODELS, MEASURED)
    rows["distilbert_pruned"] = MEASURED | {"device_kind": "emulator", "device": "Google sdk"}
    text = render(rows, False)
    assert row(
        text, "pruned. Emulator: Google sdk, ONNX Runtime 1.32.0 (android-aar), 1 thread, 1 x 64 tokens, a quick look"
    )
    assert row(
        text, "fp32. Phone: A Phone <1>, ONNX Runtime 1.32.0 (android-aar), 1 thread, 1 x 64 tokens, a quick look"
    )
