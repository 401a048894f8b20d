"""Model cards say what a checkpoint descends from and whose terms it is under; publishing sends it with its card."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from clone import MAKE, finished_project
from fake_hub import fake_hub
from huggingface_hub import HfApi, ModelCard
from ruamel.yaml import YAML

from stages.cards.card import Card, shown_parameters
from stages.cards.checkpoints import onnx_card, pruned_card, quantized_card, student_card, teacher_card
from stages.cards.terms import LICENSES, TERMS, Lineage, Source, lineage_of_folder, lineage_of_init, sources_of_data
from stages.core.errors import UserError
from stages.core.params import load_params
from stages.deployment.card import task_card
from stages.finetuning.tasks import TASKS
from stages.reporting import publish

YAML_1_2 = YAML(typ="safe", pure=True)
ROOT = Path(__file__).resolve().parents[1]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
DISTILLED = ("distill", "epochs", "batch_size", "seed")
TEACHER_FIGURES = {"parameters": 22_744_506, "mlm_loss": 4.457}
STUDENT_FIGURES = {"parameters": 19_194_810, "teacher_parameters": 22_744_506, "mlm_loss": 2.9413}


def data_set(folder: Path, name: str, **origin: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"name": name, **origin}))
    return folder


def written(card: Card, folder: Path) -> ModelCard:
    folder.mkdir(parents=True, exist_ok=True)
    card.write(folder)
    return ModelCard.load(folder / "README.md")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/bert and models/distilbert with their cards, made with Wikipedia text of the hub."""
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml")
    corpus = sources_of_data(
        data_set(tmp_path / "corpus", "corpus", source="hub", repository="Salesforce/wikitext", revision="b08601e")
    )
    folder = Path("models")
    written(
        teacher_card(folder / "bert", params.teacher, shown_parameters(params, "teacher"), corpus, TEACHER_FIGURES),
        folder / "bert",
    )
    written(
        student_card(
            folder / "distilbert", shown_parameters(params, *DISTILLED), folder / "bert", corpus, STUDENT_FIGURES
        ),
        folder / "distilbert",
    )
    return folder


def test_terms_are_known_for_every_task_and_every_checkpoint_of_a_profile() -> None:
    notice = (ROOT / "NOTICE").read_text()
    assert {*TASKS, "SQuAD"} <= TERMS.keys()
    for name in (*TASKS, "SQuAD"):
        assert name in notice
    for path in (ROOT / "profiles").glob("*.yaml"):
        init = (YAML_1_2.load(path.read_text()).get("teacher") or {}).get("init", "config")
        assert init == "config" or init in LICENSES, path
        assert init == "config" or init.split("/")[1] in notice


def test_the_head_is_what_the_hub_reads(models: Path) -> None:
    head = ModelCard.load(models / "distilbert/README.md").data.to_dict()
    assert head["license"] == "other", "Wikipedia's text is under share-alike terms"
    assert head["base_model"] == MINILM
    assert head["datasets"] == ["Salesforce/wikitext"]
    assert head["library_name"] == "transformers"
    assert head["pipeline_tag"] == "fill-mask"


def test_the_text_has_parameters_figures_and_terms(models: Path) -> None:
    text = (models / "distilbert/README.md").read_text()
    assert "19.2 million parameters" in text
    assert "| mlm_loss | 2.9413 |" in text
    assert f"- weights of {MINILM}: apache-2.0" in text
    assert "at revision b08601e: text of Wikipedia: CC BY-SA" in text
    shown = YAML_1_2.load(text.partition("```yaml\n")[2].partition("```")[0])
    assert shown == load_params(ROOT / "params.yaml").model_dump(
        mode="json", include={*DISTILLED, "hardware"}, exclude_none=True
    )


def test_descendants_keep_licence_origin_and_data(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(ROOT / "params.yaml")
    figures = {"parameters": 19_194_810, "parameters_before": 19_194_810}
    written(
        pruned_card(models / "pruned", params.prune, {}, models / "distilbert", (), figures, False), models / "pruned"
    )
    written(quantized_card(models / "combined", {}, models / "pruned"), models / "combined")
    data_set(tmp_path / "data/squad", "SQuAD", source="hub", repository="rajpurkar/squad", revision="7b6d24c")
    monkeypatch.chdir(tmp_path)
    int8 = {"bytes": 5, "relative_error": 0.031, "scores": {"f1": 37.5}}
    card = task_card(Path("task_models/SQuAD/distilbert"), {}, "SQuAD", models / "distilbert", {}, int8)
    assert "| INT8: f1 | 37.5000 |\n| INT8: relative_error | 0.0310 |" in str(card)
    onnx = written(card, models / "squad")
    assert lineage_of_folder(models / "combined") == lineage_of_folder(models / "distilbert")
    assert "import stages.modeling" in (models / "combined/README.md").read_text()
    assert onnx.data.to_dict()["datasets"] == ["Salesforce/wikitext", "rajpurkar/squad"]
    assert "CC BY-SA 4.0" in onnx.text


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    unknown = params.teacher.model_copy(update={"init": "someone/bert"})
    own = sources_of_data(data_set(tmp_path / "own", "corpus", source="files"))
    shown = {"teacher": {"init": "someone/bert"}}
    card = written(teacher_card(Path("models/bert"), unknown, shown, own, TEACHER_FIGURES), tmp_path / "bert")
    assert card.data.license is None
    assert "weights of someone/bert: whatever the card of someone/bert says" in card.text
    assert "whatever those files are under" in card.text
    random = params.teacher.model_copy(update={"init": "config"})
    scratch = written(teacher_card(Path("models/bert"), random, {}, own, TEACHER_FIGURES), tmp_path / "scratch")
    assert scratch.data.base_model is None
    assert "random weights" in scratch.text


def test_a_licence_is_the_weights_own_where_the_data_asks_nothing_more(tmp_path: Path) -> None:
    lineage = lineage_of_init(MINILM)
    world = sources_of_data(data_set(tmp_path / "world", "corpus", source="embedded"))
    sst2 = sources_of_data(data_set(tmp_path / "sst2", "SST-2", source="hub", repository="nyu-mll/glue", revision="b"))
    assert lineage.license(world) == "apache-2.0"
    assert lineage.license([*world, *sst2]) == "other"


def test_a_teacher_of_a_folder_is_named_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "home/ours").mkdir(parents=True)
    params = load_params(ROOT / "params.yaml")
    settings = params.teacher.model_copy(update={"init": str(tmp_path / "home/ours"), "pretrain_steps": 0})
    shown = shown_parameters(params.model_copy(update={"teacher": settings}), "teacher")
    card = written(teacher_card(Path("models/bert"), settings, shown, (), TEACHER_FIGURES), tmp_path / "bert")
    assert "22.7 million parameters: ours. The teacher" in card.text
    assert "- weights of the folder ours: whatever those weights are under" in card.text
    assert str(tmp_path) not in card.text
    assert lineage_of_init(str(tmp_path / "bert")) == lineage_of_folder(tmp_path / "bert") != Lineage()


def test_a_folder_without_a_card_has_no_lineage(tmp_path: Path) -> None:
    assert lineage_of_folder(tmp_path) == Lineage()


def test_the_generated_world_is_no_data_set_of_the_hub(tmp_path: Path) -> None:
    (source,) = sources_of_data(data_set(tmp_path / "world", "corpus", source="embedded"))
    assert source == Source("corpus of the generated English world of distilbert-dvc", "Apache-2.0")


FOLDED = "<details>\n<summary>{}</summary>\n\n{}\n\n</details>\n\n"
TABLES = (
    "Profile `tiny`.\n\n### GLUE\n\n| a |\n\n### Size\n\n| b |\n\n"
    f"{FOLDED.format('Quality', '| q |')}{FOLDED.format('On Android', '| c |')}"
)


@pytest.fixture
def ready(models: Path, tmp_path: Path) -> Path:
    """A checkpoint to publish, and the report's tables."""
    (models / "distilbert/model.safetensors").write_bytes(b"weights")
    (models / "distilbert/config.json").write_text("{}")
    (tmp_path / "plots/report").mkdir(parents=True)
    (tmp_path / "plots/report/tables.md").write_text(TABLES)
    return models


def test_the_published_card_has_the_model_s_tables_and_its_new_name(ready: Path) -> None:
    upload = publish.prepare("distilbert", "owner/name")
    assert [file.name for file in upload.files] == ["config.json", "model.safetensors"]
    assert 'model="owner/name"' in upload.card
    assert "### GLUE\n\n| a |" in upload.card
    assert "### Size\n\n| b |" in upload.card
    assert "### Quality\n\n| q |" in upload.card
    assert "details" not in upload.card
    assert "Android" not in upload.card
    assert "Profile `tiny`." in upload.card
    assert "### Size" not in publish.prepare("bert", "owner/name").card


def test_nothing_is_sent_unless_asked(
    ready: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["publish", "--model", "distilbert", "--repository", "owner/name"])
    monkeypatch.setattr(publish, "send", lambda *_: pytest.fail("was sent"))
    monkeypatch.setattr(publish, "is_reported", lambda: True)
    publish.main()
    shown = capsys.readouterr().out
    assert "models/distilbert/model.safetensors" in shown
    assert "nothing was sent; with UPLOAD=1" in shown


def test_files_of_a_published_folder_are_named_without_ours(ready: Path) -> None:
    written(onnx_card(ready / "onnx", {}, ready / "distilbert", {}), ready / "onnx")
    card = publish.prepare("onnx", "owner/name").card
    assert 'InferenceSession("distilbert_baseline_int8.onnx")' in card
    assert "models/onnx/" not in card.partition("```python")[2].partition("```")[0]


def test_a_task_model_is_published(ready: Path) -> None:
    folder = ready.parent / "task_models/SST-2/pruned"
    folder.mkdir(parents=True)
    data_set(ready.parent / "data/glue/SST-2", "SST-2", source="embedded")
    card = task_card(Path("task_models/SST-2/pruned"), {}, "SST-2", Path("models/distilbert"), {}, {})
    written(card, folder)
    (folder / "model_int8.onnx").write_bytes(b"weights")
    upload = publish.prepare("task_models/SST-2/pruned", "owner/name")
    assert [file.name for file in upload.files] == ["model_int8.onnx"]
    assert 'InferenceSession("model_int8.onnx")' in upload.card
    assert "copies that were fine-tuned" not in upload.card
    with pytest.raises(UserError, match=r"now here: .*distilbert, .*task_models/SST-2/pruned"):
        publish.prepare("task_models/SST-2/none", "owner/name")


def test_tables_of_other_weights_are_not_published(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["publish", "--model", "distilbert", "--repository", "owner/name", "--upload"])
    monkeypatch.setattr(publish, "send", lambda *_: pytest.fail("was sent"))
    monkeypatch.setattr(publish, "is_reported", lambda: False)
    with pytest.raises(UserError, match="not of these weights"):
        publish.main()


@pytest.mark.parametrize("repository", ["name", "a/b/c", "owner/na me", ""])
def test_a_wrong_repository_is_refused(ready: Path, repository: str) -> None:
    with pytest.raises(UserError, match="REPO="):
        publish.prepare("distilbert", repository)


def test_a_missing_checkpoint_is_named_with_those_there_are(ready: Path) -> None:
    with pytest.raises(UserError, match=r"models/released: no checkpoint with a card; .* now here: bert, distilbert"):
        publish.prepare("released", "owner/name")


def test_make_publish_sends_only_if_asked(tmp_path: Path) -> None:
    files = {"models/distilbert/README.md": "# A card\n", "models/distilbert/model.safetensors": "weights"}
    project = finished_project(tmp_path / "clone", files)
    with fake_hub() as hub:
        project.environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        shown = project.run(*MAKE, "publish", "REPO=owner/name")
        assert "models/distilbert/model.safetensors" in shown
        assert f"nothing was sent; with UPLOAD=1 this goes to {hub.url}/owner/name" in shown
        assert hub.requests == []
        assert "published: " in project.run(*MAKE, "publish", "REPO=owner/name", "UPLOAD=1")
        assert hub.created.get("visibility") != "private"
        assert "published: " in project.run(*MAKE, "publish", "REPO=owner/name", "UPLOAD=1", "PRIVATE=1")
    assert hub.created == {"name": "name", "organization": "owner", "visibility": "private"}
    assert list(hub.objects.values()) == [b"weights"]
    assert "error: REPO=: expected owner/name" in project.run(*MAKE, "publish", check=False)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the hub's client, of its own LFS upload
def test_an_upload_is_one_commit_of_all_files(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the fake one speaks plain LFS
    upload = publish.prepare("distilbert", "owner/name")
    with fake_hub() as hub:
        address = publish.send(upload, True, HfApi(endpoint=hub.url, token="hf_test"))
    assert address == f"{hub.url}/owner/name/commit/{'0' * 40}"
    assert hub.created == {"name": "name", "organization": "owner", "visibility": "private"}
    assert {token for _, _, token in hub.requests} <= {"Bearer hf_test"}
    digest = hashlib.sha256(b"weights").hexdigest()
    assert hub.objects == {digest: b"weights"}
    lines = {line["value"].get("path"): line for line in hub.commit if line["key"] != "header"}
    assert lines["model.safetensors"]["value"]["oid"] == digest
    assert base64.b64decode(lines["README.md"]["value"]["content"]).decode() == upload.card
    assert lines.keys() == {"README.md", "config.json", "model.safetensors"}


def test_a_refusal_and_a_hub_that_is_away_are_one_line(ready: Path) -> None:
    upload = publish.prepare("distilbert", "owner/name")
    with fake_hub(status=401) as hub, pytest.raises(UserError, match=r"owner/name: the hub refused \(401"):
        publish.send(upload, False, HfApi(endpoint=hub.url, token="hf_test"))
    with pytest.raises(UserError, match="cannot be reached"):
        publish.send(upload, False, HfApi(endpoint=hub.url, token="hf_test"))
