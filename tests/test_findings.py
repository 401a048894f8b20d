"""The report's answers on hand-made figures: which model to ship, what agrees with what was published, and verdicts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measurements import VARIANTS, change, write_measurements
from test_device_report import MEASURED, UNMEASURED

from stages.measurement.variants import ONNX_MODELS
from stages.reporting.choice import choice
from stages.reporting.compressed import Making, Measurements, load_measurements
from stages.reporting.compression_answers import gains, orthogonal
from stages.reporting.exported import Exported
from stages.reporting.findings import answers
from stages.reporting.published import PARAMETERS
from stages.reporting.verdicts import agreement, gain

NO_PHONE: Any = dict.fromkeys(ONNX_MODELS, UNMEASURED)


def load(folder: Path, random: bool = False) -> Measurements:
    """Eight variants of one size, one speed (10 ms, rounds from 9 to 11) and one loss."""
    write_measurements(folder)
    making = Making("embedded", "all", random, "fp32")
    found = load_measurements(folder / "metrics", folder / "data", ("bert", "distilbert"), ("SST-2",), making)
    for name in VARIANTS:
        put(found, name, 100.0, 10.0, 0.0, 0.01)
    return found


@pytest.fixture
def found(tmp_path: Path) -> Measurements:
    return load(tmp_path)


def put(found: Any, name: str, size: float, milliseconds: float, loss: float, half: float) -> None:
    """Set a variant's size, its latency, whose rounds spread by a tenth, and how much worse its loss is."""
    found.compression[name] |= {"size_mb": size, "throughput": 1000 / milliseconds}
    found.compression[name]["latency_ms"]["64"]["p50"] = milliseconds
    spread = {"median": milliseconds, "low": 0.9 * milliseconds, "high": 1.1 * milliseconds}
    pace = {"low": 900 / milliseconds, "high": 1100 / milliseconds}
    found.summary["compression"][name] = {"latency_ms.64.p50": spread, "throughput": pace}
    found.quality[name] |= {"mlm_loss": 3.0 + loss} | (change(loss, half) if name != "baseline" else {})


def chosen(found: Measurements) -> str:
    return choice(found).split("**")[1]


def test_the_small_fast_file_is_shipped_unless_its_loss_is_shown_to_be_too_high(found: Measurements) -> None:
    put(found, "onnx_baseline_int8", 25.0, 3.0, 0.05, 0.03)
    put(found, "onnx_pruned_int8", 25.0, 2.0, 1.0, 0.2)
    text = choice(found)
    assert chosen(found) == "ONNX, INT8"
    assert "*ONNX, pruned, INT8* is shown to have an MLM loss more than 0.1 above the student's" in text
    assert "Its loss is +0.050 (+0.020 to +0.080) beside the student's" in text
    assert "which ONNX Runtime takes on a phone as it is" in text
    put(found, "onnx_baseline_int8", 25.0, 3.0, 0.5, 0.03)
    assert chosen(found) != "ONNX, INT8"


def test_a_difference_that_too_few_tokens_show_does_not_decide_but_is_said(found: Measurements) -> None:
    put(found, "onnx_baseline_int8", 25.0, 3.0, 0.2, 0.5)  # looks worse, by less than its interval is wide
    text = choice(found)
    assert chosen(found) == "ONNX, INT8"
    assert "In loss it cannot be told apart from the student" in text
    assert "do not tell whether ONNX, INT8 is within it; more `quality_eval.blocks` would" in text


def test_an_onnx_file_is_preferred_where_its_speed_cannot_be_told_apart(found: Measurements) -> None:
    put(found, "quantized", 60.0, 3.0, 0.0, 0.01)
    put(found, "onnx_baseline_int8", 25.0, 3.2, 0.0, 0.01)
    assert chosen(found) == "ONNX, INT8"
    assert "None of these is shown to be faster." in choice(found)
    assert "In speed it cannot be told apart from PyTorch, INT8" in choice(found)
    put(found, "onnx_baseline_int8", 25.0, 6.0, 0.0, 0.01)
    assert chosen(found) == "PyTorch, INT8"
    assert "A phone needs an ONNX file, such as *ONNX, INT8*." in choice(found)


def test_task_models_are_cited_with_their_intervals_and_the_published_change(found: Measurements) -> None:
    put(found, "onnx_baseline_int8", 25.0, 3.0, 0.0, 0.01)
    assert "SST-2 -3.0 to +1.0 points, no difference shown (published: -0.8)" in choice(found)


def test_a_task_that_int8_is_shown_to_harm_is_named(found: Measurements) -> None:
    put(found, "onnx_baseline_int8", 25.0, 3.0, 0.0, 0.01)
    sst2: Any = found.onnx[Exported("SST-2", "baseline", True)]
    sst2 |= {"difference_low": -0.05, "difference_high": -0.01}
    assert "SST-2 -5.0 to -1.0 points, a difference that is shown" in choice(found)
    assert "For tasks like SST-2 the fp32 file is the better one" in choice(found)


def test_published_changes_of_loss_stand_beside_ours_for_the_same_model_and_text_only(found: Measurements) -> None:
    assert gains(found).split("| Variant")[1].splitlines()[0].count("published") == 2
    assert "only whether they add up compares" in orthogonal(found)
    for row in found.compression.values():
        changed: Any = row
        changed["parameters"] = PARAMETERS
    same = replace(found, making=Making("hub", "all", False, "fp32"))
    assert gains(same).split("| Variant")[1].splitlines()[0].count("published") == 3
    assert "+0.123 |" in gains(same)


def test_random_weights_say_nothing_about_quality(tmp_path: Path) -> None:
    found = load(tmp_path, random=True)
    put(found, "onnx_baseline_int8", 25.0, 3.0, 5.0, 0.01)
    assert choice(found).startswith("**ONNX, INT8, if size and speed were all.** The weights are random")
    assert "random" in orthogonal(found)
    for text in (gains(found), orthogonal(found)):
        assert "MLM loss" not in text


def test_what_each_brings_is_said_first_and_set_beside_the_published(found: Measurements) -> None:
    for name, size in (("onnx_baseline_int8", 25.0), ("quantized", 61.0)):
        put(found, name, size, 3.1, 0.1, 0.01)
    put(found, "onnx_pruned_int8", 25.0, 3.1, 0.3, 0.01)
    put(found, "onnx_pruned", 100.0, 10.1, 0.2, 0.01)
    text = gains(found)
    assert text.startswith(
        "**INT8 brings size and speed; pruning brings neither size nor speed that is shown; both together bring size "
        "and speed.**"
    )
    assert "25 % of the size (ours agrees) and 3.2x as fast (ours agrees)" in text
    assert "61 % of the size (ours agrees) and 1.7x as fast (ours goes the same way, further)" in text


@pytest.mark.parametrize(("both", "verdict", "published"), [(0.3, "Yes", "agrees"), (0.9, "No", "contradicts it")])
def test_pruning_is_orthogonal_where_the_effects_add_up(
    found: Measurements, both: float, verdict: str, published: str
) -> None:
    put(found, "quantized", 60.0, 5.0, 0.1, 0.01)
    put(found, "pruned", 100.0, 10.0, 0.2, 0.01)
    put(found, "combined", 60.0, 5.0, both, 0.01)
    text = orthogonal(found)
    assert text.startswith(f"**{verdict}: in ")
    assert f"INT8 +0.100, pruning +0.200, both {both:+.3f} where the sum would be +0.300" in text
    assert f"ours {published}." in text


def test_pruning_that_helps_in_one_precision_only_is_not_orthogonal(found: Measurements) -> None:
    put(found, "pruned", 50.0, 10.0, 0.0, 0.01)
    assert orthogonal(found).startswith("**No: in size pruning does something else with INT8 than without")


def test_the_bottleneck_is_named(found: Measurements) -> None:
    bottleneck = answers(found, NO_PHONE)[1].text
    assert bottleneck.startswith("**None, size comes nearest**: of what an app is taken to afford")
    assert "50 % of the size" in bottleneck
    assert "size and latency stood in the way; here none does, on another machine and for another model" in bottleneck
    put(found, "onnx_baseline", 10.0, 10.0, 0.0, 0.01)
    found.compression["onnx_baseline"]["latency_ms"]["128"]["p50"] = 190.0
    bottleneck = answers(found, NO_PHONE)[1].text
    assert bottleneck.startswith("**Latency**: ")
    assert "here latency does, on" in bottleneck
    put(found, "onnx_baseline", 300.0, 10.0, 0.0, 0.01)
    bottleneck = answers(found, NO_PHONE)[1].text
    assert bottleneck.startswith("**Size and latency**: ")
    assert "stood in the way; ours agrees, on another machine" in bottleneck


def test_a_slow_phone_and_an_emulator_are_called_so(found: Measurements) -> None:
    assert answers(found, NO_PHONE)[0].text.startswith("**Not known yet: on a phone it was not measured.**")
    slow: Any = dict.fromkeys(ONNX_MODELS, MEASURED | {"p50_ms": 300.0, "device_kind": "emulator"})
    text = answers(found, slow)[0].text
    assert text.startswith("**Not at an interactive pace:** on A Phone <1>, which is no phone but an emulator")


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (3.0, 3.2, "ours agrees"),
        (1.02, 0.99, "ours agrees"),
        (2.0, 3.2, "ours goes the same way, less far"),
        (0.25, 0.61, "ours goes the same way, further"),
        (0.8, 1.5, "ours contradicts it"),
        (1.0, 1.5, "ours contradicts it"),
    ],
)
def test_agreement_with_a_published_ratio(ours: float, theirs: float, words: str) -> None:
    assert agreement(ours, theirs) == words


@pytest.mark.parametrize(("rounds", "milliseconds", "expected"), [(4, 8.0, 1.25), (3, 8.0, None), (3, 2.0, 5.0)])
def test_few_rounds_show_large_differences_only(
    found: Any, rounds: int, milliseconds: float, expected: float | None
) -> None:
    put(found, "quantized", 100.0, milliseconds, 0.0, 0.01)
    found = replace(found, rounds=rounds)
    found.summary["compression"]["baseline"]["latency_ms.64.p50"]["low"] = 9.9  # apart from the other's 8.8
    assert gain(found, "quantized", "baseline") == expected
