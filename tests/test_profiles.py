"""`make profile`: overlays on the complete tiny profile."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import profile
from stages.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml") if path.stem != "tiny")


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_tiny_is_what_is_committed_byte_for_byte() -> None:
    assert profile.render(["tiny"]) == (ROOT / "profiles/tiny.yaml").read_text()


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_valid_and_change_only_what_they_name(name: str) -> None:
    overlay = YAML(typ="safe").load(ROOT / f"profiles/{name}.yaml")
    base = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    merged = YAML(typ="safe").load(profile.render([name]))
    assert merged.pop("profile") == name
    base.pop("profile")

    def check(base: object, overlay: object, merged: object) -> None:
        if isinstance(overlay, dict) and overlay and base is not None:  # `resources` may name further stages
            assert isinstance(base, dict)
            assert isinstance(merged, dict)
            for key in base.keys() | overlay.keys():
                check(base.get(key), overlay.get(key, base.get(key)), merged[key])
        else:
            assert merged == overlay

    check(base, overlay, merged)


@pytest.mark.parametrize("name", OVERLAYS)
def test_comments_are_kept(name: str) -> None:
    rendered = profile.render([name])
    for comment in (
        "# passes over the corpus in distillation",
        "# shown in the tables",
        "# seed of",
        "# tokens a block",
    ):
        assert (comment in rendered) == (comment in (ROOT / "profiles/tiny.yaml").read_text())


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16, 32, 64])
def test_the_batch_of_the_paper_divides_among_gpus(gpus: int) -> None:
    merged = YAML(typ="safe").load(profile.render(["paper"]))
    assert merged["distill"]["effective_batch_size"] % (gpus * merged["batch_size"]) == 0


@pytest.mark.parametrize("name", ["mini", "reproduction", "paper"])
def test_real_profiles_do_not_inherit_the_exceptions_of_the_generated_tasks(name: str) -> None:
    merged, tiny = (YAML(typ="safe").load(profile.render([one])) for one in (name, "tiny"))
    for suite in ("glue", "imdb", "squad"):
        for task, settings in merged[suite]["tasks"].items():
            inherited = settings.items() & tiny[suite]["tasks"][task].items()
            assert not {key for key, _ in inherited} & {"epochs", "learning_rate"}
    assert merged["squad"]["tasks"]["SQuAD"]["learning_rate"] <= 2e-4
    assert merged["imdb"]["tasks"]["IMDb"]["learning_rate"] <= 2e-4
    assert "epochs" not in merged["squad"]["tasks"]["SQuAD"]
    if name != "mini":  # which has exceptions of its own, to stay short
        assert set(map(str, merged["glue"]["tasks"].values())) == {"{}"}
        assert merged["imdb"]["tasks"]["IMDb"]["epochs"] is None


@pytest.mark.parametrize("name", ["tiny", "mini", "reproduction", "paper"])
def test_exported_task_models_are_trained_like_the_evaluated_ones(name: str) -> None:
    merged = YAML(typ="safe").load(profile.render([name]))
    evaluated = {**merged["glue"]["tasks"], **merged["imdb"]["tasks"], **merged["squad"]["tasks"]}
    assert merged["onnx_export"]["tasks"]
    for task, settings in merged["onnx_export"]["tasks"].items():
        assert settings == evaluated[task]


def test_profiles_stack() -> None:
    merged = YAML(typ="safe").load(profile.render(["paper", "dry"]))
    assert merged["profile"] == "paper+dry"
    assert merged["seeds"] == [42]
    assert merged["teacher"]["init"] == "google-bert/bert-base-uncased"


def test_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="no such profile; there are: dry, mini, paper, reproduction, size, tiny"):
        profile.render(["huge"])
