"""Published models: their code, which decodes without this project, their card, and the upload to a stand-in."""

import json
import logging
import os
import random
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import yaml
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as transformers_logging

from common.tag_schemes import MARKUPS, TRAINED_MARKUPS, tag_set, tags_to_entities
from inference import hub_model
from inference.predictor import NerPredictor
from models import BertCrfForNer, BertCrfPerTypeForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from models.tagger import LabelSpace
from models.word_states import WordStateOptions
from processors.features.alignment import drops_spaces_between_words, tokenize_words
from tests.helpers import FILLERS, NAMES
from tests.models.families import EVERY_FAMILY, collate, random_rows, tiny_tagger
from tests.tools.hub import REPO, TOKEN, Hub
from tests.tools.runs import FinishedRun, call_script, edit_json, read_json
from tools.publish import main, upload, write_copy

ODD_WORDS = ["", " ", "[SEP]", "</s>", "[UNK]", "\u200b", "a\ud800b", "Anna", "BOB", "McKay", "é", "北", "q" * 600]
WORDS = [*FILLERS, *(name for names in NAMES.values() for one in names for name in one.split()), *ODD_WORDS]


@pytest.fixture(scope="module", params=["crf_run", "softmax_run"])
def run(request: pytest.FixtureRequest) -> FinishedRun:
    found: FinishedRun = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def copy(run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "copy"
    write_copy(run.folder, folder, REPO, "apache-2.0")
    return folder


def random_texts(count: int = 30, seed: int = 0) -> list[list[str]]:
    """Texts of 0 to 90 words: of windows of 64 tokens, some need several."""
    generator = random.Random(seed)
    return [generator.choices(WORDS, k=generator.choice((0, 1, 2, 5, 20, 90))) for _ in range(count)]


def load(copy: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """What transformers makes of the copy, but for the copying of the module."""
    config = AutoConfig.from_pretrained(copy)
    module, _, name = config.auto_map["AutoModelForTokenClassification"].partition(".")
    assert (copy / f"{module}.py").read_text("utf-8") == Path(hub_model.__file__).read_text("utf-8")
    return getattr(hub_model, name).from_pretrained(copy, config=config), AutoTokenizer.from_pretrained(copy)


def assert_same_tags(copy: Path, texts: list[list[str]]) -> list[list[str]]:
    """The tags of the published code, which are those of the project."""
    expected = NerPredictor.load(copy, "cpu").tag_words(texts)
    model, tokenizer = load(copy)
    found = model.tag_words(texts, tokenizer, batch_size=4)
    assert [one.tags for one in found] == expected
    for one in found:
        assert [tuple(entity) for entity in one.entities] == [tuple(entity) for entity in tags_to_entities(one.tags)]
    return expected


def test_the_code_gives_the_tags_of_the_run(run: FinishedRun, copy: Path) -> None:
    tags = assert_same_tags(copy, random_texts())
    assert len({tag for row in tags for tag in row}) > 3
    assert NerPredictor.load(run.folder, "cpu").tag_words(random_texts()) == tags


@pytest.mark.parametrize("head", [BertCrfForNer, BertSoftmaxForNer])
@pytest.mark.parametrize("markup", TRAINED_MARKUPS)
def test_the_code_gives_the_tags_of_random_models(
    head: type[FlatTagger], markup: str, bert: PreTrainedTokenizerBase, encoder: Path, tmp_path: Path
) -> None:
    is_even = TRAINED_MARKUPS.index(markup) % 2 == 0
    parts = WordStateOptions(word_pooling="mean", last_layers=2, bilstm_size=8) if is_even else WordStateOptions()
    write_random_model(tmp_path / "run", head, markup, bert, encoder, parts, casing=is_even)
    write_copy(tmp_path / "run", tmp_path / "copy", REPO)
    tags = assert_same_tags(tmp_path / "copy", random_texts())
    assert len({tag for row in tags for tag in row}) > len(tag_set(["LOC", "PER-X"], MARKUPS[markup])) // 2


def test_the_code_searches_where_the_run_does(bert: PreTrainedTokenizerBase, encoder: Path, tmp_path: Path) -> None:
    write_random_model(tmp_path / "run", BertSoftmaxForNer, "bioes", bert, encoder)
    by_word = NerPredictor.load(tmp_path / "run", "cpu").tag_words(random_texts())
    edit_json(tmp_path / "run" / "config.json", tag_decoding="viterbi", transition_biases={"background_to_start": 1.5})
    write_copy(tmp_path / "run", tmp_path / "copy", REPO)
    assert assert_same_tags(tmp_path / "copy", random_texts()) != by_word
    assert "lacks the search for the best legal tag sequence" in (tmp_path / "copy" / "README.md").read_text("utf-8")
    assert load(tmp_path / "copy")[0].depends_on_words


def write_random_model(
    folder: Path,
    head: type[FlatTagger],
    markup: str,
    tokenizer: PreTrainedTokenizerBase,
    encoder: Path,
    parts: WordStateOptions | None = None,
    casing: bool = False,
    **changes: Any,
) -> None:
    """A trained folder, but for the training: all tags are likely, and so are all transitions."""
    set_seed(3)
    config = AutoConfig.from_pretrained(encoder, **changes)
    head.configure(config, LabelSpace(["LOC", "PER-X"], markup), head.Options())
    (parts or WordStateOptions()).write(config)
    config.eval_max_seq_length, config.window_overlap = 64, 10
    model = head(config)
    if casing:
        config.casing_types = [0, *model.add_token_types(3)]
    sizes = {"bert": 0.2, "roberta": 0.2, "bilstm": 1.0, "classifier": 3.0, "crf": 1.0}
    for name, weight in model.named_parameters():
        if weight.dim() > 1 or name.startswith("crf."):
            torch.nn.init.normal_(weight, std=sizes[name.partition(".")[0]])
    with torch.no_grad():
        ids = torch.randint(config.vocab_size, (8, 32))
        mean = model.eval()(ids).logits.mean((0, 1))
        model.classifier.bias.sub_(mean)  # else all words would prefer the same tags
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_words_are_read_as_the_tokenizer_of_the_family_needs(
    roberta: PreTrainedTokenizerBase, slow_bert: PreTrainedTokenizerBase, encoder: Path, tmp_path: Path
) -> None:
    changes = {"model_type": "roberta", "vocab_size": len(roberta), "pad_token_id": 1, "max_position_embeddings": 80}
    config = AutoConfig.for_model(**{**AutoConfig.from_pretrained(encoder).to_dict(), **changes})
    config.save_pretrained(tmp_path / "roberta")
    write_random_model(tmp_path / "one", BertCrfForNer, "bio", roberta, tmp_path / "roberta")
    write_random_model(tmp_path / "two", BertCrfForNer, "bio", slow_bert, encoder)
    for name in ("one", "two"):
        write_copy(tmp_path / name, tmp_path / f"{name}-copy", REPO)
        assert_same_tags(tmp_path / f"{name}-copy", random_texts())


def test_words_keep_their_spaces_with_a_tokenizer_that_drops_them(roberta: PreTrainedTokenizerBase) -> None:
    tokenizer = AutoTokenizer.from_pretrained(roberta.name_or_path, add_prefix_space=False)
    assert drops_spaces_between_words(tokenizer)
    for words in random_texts(10):
        (expected,) = tokenize_words([words], tokenizer, 5)
        found = hub_model._pieces_of_words(words, tokenizer, 5)
        assert [piece for word in found for piece in word] == expected.ids.tolist()
        assert [len(word) for word in found] == expected.counts.tolist()


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_code_scores_words_as_the_project_does(family: str) -> None:
    tagger = tiny_tagger(BertCrfForNer, family, word_states={"bilstm_size": 4, "word_pooling": "mean"})
    model = hub_model.BertCrfForNer(tagger.config).eval()
    model.load_state_dict(tagger.state_dict())
    row = random_rows([14])
    batch = {name: value for name, value in collate(row, tagger.config).items() if name != "labels"}
    del batch["attention_mask"]
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, tagger(**batch).logits)


MORE_THAN_THE_CARD = """
import json, sys
from transformers import AutoModel, pipeline
folder, texts = sys.argv[1], json.loads(sys.argv[2])
found = [
    [one.tags for one in loaded.tag_words(texts, tokenizer)]
    for loaded in (model, AutoModel.from_pretrained(folder, trust_remote_code=True))
]
pipe = pipeline("token-classification", model=folder, trust_remote_code=True, aggregation_strategy="first")
print(json.dumps([type(model).__name__, *found, [one["word"] for one in pipe(" ".join(texts[0]))]]))
"""


def test_the_code_of_the_card_works_where_this_project_is_not(crf_run: FinishedRun, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    write_copy(crf_run.folder, copy, REPO)
    (shown,) = re.findall(r"```python\n(.*?)```", (copy / "README.md").read_text("utf-8"), re.DOTALL)
    texts = [["anna", "met", "bob", "near", "new", "york"], ["the", "man", "left"]]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    code = shown.replace(REPO, str(copy)) + MORE_THAN_THE_CARD
    command = [sys.executable, "-I", "-c", code, str(copy), json.dumps(texts)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    of_card, line = ended.stdout.splitlines()
    assert of_card.startswith("['")
    name, *found, words = json.loads(line)
    expected = NerPredictor.load(crf_run.folder, "cpu").tag_words(texts)
    assert (name, found) == ("BertCrfForNer", [expected, expected])
    assert "new york" in words
    assert "scores of tokens" in ended.stderr


def test_scores_of_tokens_are_those_of_a_token_classifier(softmax_run: FinishedRun, tmp_path: Path) -> None:
    write_copy(softmax_run.folder, tmp_path / "copy", REPO)
    model, tokenizer = load(tmp_path / "copy")
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "copy")
    batch = tokenizer(["anna met bob", "he left"], padding=True, return_tensors="pt")
    with warnings.catch_warnings(action="error"), torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, plain(**batch).logits)


def test_a_model_of_words_warns_where_it_scores_tokens(crf_run: FinishedRun, tmp_path: Path) -> None:
    write_copy(crf_run.folder, tmp_path / "copy", REPO)
    model, tokenizer = load(tmp_path / "copy")
    with pytest.warns(UserWarning, match="see tag_words"):
        model(**tokenizer("anna met bob", return_tensors="pt"))
    with pytest.raises(TypeError, match="a list of words for each text"):
        model.tag_words(["anna", "met"], tokenizer)


@pytest.mark.parametrize("published", [False, True])
def test_transformers_warns_where_a_crf_is_read_as_a_token_classifier(
    crf_run: FinishedRun, published: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = crf_run.folder
    if published:
        folder = tmp_path / "copy"
        write_copy(crf_run.folder, folder, REPO)
    verbosity = transformers_logging.get_verbosity()  # the scripts of this project lower it
    transformers_logging.set_verbosity_warning()
    transformers_logging.enable_propagation()
    try:
        plain = AutoModelForTokenClassification.from_pretrained(folder)
    finally:
        transformers_logging.disable_propagation()
        transformers_logging.set_verbosity(verbosity)
    reports = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(re.search(r"crf\.transitions +\| UNEXPECTED", report) for report in reports)
    plain.save_pretrained(tmp_path / "plain")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "plain")
    with caplog.at_level(logging.WARNING):
        NerPredictor.load(tmp_path / "plain", "cpu")
    assert "was a CRF and was saved as BertForTokenClassification" in caplog.text


def test_the_project_reads_the_copy_and_does_not_hand_its_code_on(run: FinishedRun, copy: Path, tmp_path: Path) -> None:
    assert NerPredictor.load(copy, "cpu")(["anna met bob"]) == NerPredictor.load(run.folder, "cpu")(["anna met bob"])
    write_copy(copy, tmp_path / "again", REPO, "apache-2.0")
    assert read_json(tmp_path / "again" / "config.json") == read_json(copy / "config.json")
    assert "auto_map" not in read_json(run.folder / "config.json")
    options = {**run.options, "model_name_or_path": copy, "output_dir": tmp_path / "next", "max_steps": 1}
    call_script(run.script, **options, do_train=True)
    assert "auto_map" not in read_json(tmp_path / "next" / "config.json")


def test_a_copy_holds_no_text_of_the_data(copy: Path) -> None:
    names = "README.md config.json eval_results.json hub_model.py model.safetensors test_results.json tokenizer.json"
    assert sorted(path.name for path in copy.iterdir()) == [*names.split(), "tokenizer_config.json"]


def test_the_card_states_scores_calibration_command_and_licence(run: FinishedRun, copy: Path) -> None:
    card = (copy / "README.md").read_text("utf-8")
    _, header, body = card.split("---\n", 2)
    found = yaml.safe_load(header)
    assert (found["license"], found["pipeline_tag"]) == ("apache-2.0", "token-classification")
    assert "base_model" not in found  # the encoder is a folder
    (index,) = found["model-index"]
    metrics = {
        (one["dataset"]["split"], metric["type"]): metric["value"]
        for one in index["results"]
        for metric in one["metrics"]
    }
    for split, file in (("dev", "eval_results.json"), ("test", "test_results.json")):
        results = read_json(run.folder / file)
        assert metrics[split, "f1"] == pytest.approx(results["f1"], abs=1e-4)
        low, high = results["intervals"]["f1"]
        assert f"| {split} |" in body
        assert f"{100 * results['f1']:.2f} [{100 * low:.2f}, {100 * high:.2f}] | {results['support']} |" in body
    assert f"python {run.script}.py --task_name=tiny" in body
    assert "| `--num_train_epochs` | `6.0` |" in body
    assert "calibration error" in body
    assert "neighbouring sentences" not in body
    assert "`LOC`, `ORG`, `PER`" in body
    assert "\n\n\n" not in body
    assert ("`crf.*` are reported as unexpected" in body) == (run.script == "run_ner_crf")


def test_the_card_of_a_model_without_scores_says_so(
    bert: PreTrainedTokenizerBase, encoder: Path, tmp_path: Path
) -> None:
    write_random_model(tmp_path / "run", BertSoftmaxForNer, "bio", bert, encoder, WordStateOptions(bilstm_size=8))
    edit_json(tmp_path / "run" / "config.json", context_size=0, word_unit="char")
    write_copy(tmp_path / "run", tmp_path / "copy", REPO)
    card = (tmp_path / "copy" / "README.md").read_text("utf-8")
    assert "This model was not scored." in card
    assert "it reads each sentence by itself" in card
    assert "lacks the BiLSTM" in card
    assert "words = list(" in card
    assert "\n\n\n" not in card


def test_what_cannot_be_published_is_refused(
    crf_run: FinishedRun, bert: PreTrainedTokenizerBase, encoder: Path, tmp_path: Path
) -> None:
    write_random_model(tmp_path / "run", BertCrfPerTypeForNer, "bio", bert, encoder)
    with pytest.raises(ValueError, match=r"BertCrfPerTypeForNer.*hub_model.py, has only BertCrfForNer and"):
        write_copy(tmp_path / "run", tmp_path / "copy", REPO)
    with pytest.raises(ValueError, match="already exists"):
        write_copy(crf_run.folder, tmp_path / "run", REPO)
    with pytest.raises(ValueError, match="no such folder"):
        write_copy(tmp_path / "nothing", tmp_path / "copy", REPO)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)  # as HF_ENDPOINT does
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("uses_lfs", [False, True])
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub
def test_all_files_are_uploaded_in_one_commit(
    uses_lfs: bool, hub: Hub, softmax_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    write_copy(softmax_run.folder, copy, REPO)
    with pytest.raises(OSError, match="Invalid token"):
        upload(copy, REPO, False, HfApi(token="hf_wrong"))
    hub.uses_lfs = uses_lfs
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", uses_lfs)  # Xet would take the place of LFS
    assert upload(copy, REPO, True, HfApi(token=TOKEN)) == f"{hub.address}/{REPO}"
    assert hub.visibility == "private"
    assert hub.commits == [{path.name: path.read_bytes() for path in copy.iterdir()}]


def test_a_hub_that_does_not_answer_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.server_close()
    with pytest.raises(OSError, match=f"{hub.address} does not answer"):
        upload(tmp_path, REPO, False, HfApi(token=TOKEN))


def test_a_public_repository_is_no_place_for_a_private_model(hub: Hub, tmp_path: Path) -> None:
    hub.visibility = "public"
    with pytest.raises(ValueError, match="is public"):
        upload(tmp_path, REPO, True, HfApi(token=TOKEN))
    assert not hub.commits


def test_a_dry_run_from_the_command_line_uploads_nothing(
    crf_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(crf_run.folder), "--repo_id", REPO, "--dry_run", str(tmp_path / "copy")]
    monkeypatch.setattr(sys, "argv", ["publish", *words])
    main()
    assert (tmp_path / "copy" / "README.md").is_file()
    assert "No licence was stated." in (tmp_path / "copy" / "README.md").read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["publish", str(crf_run.folder), "--repo_id", "a name"])
    with pytest.raises(SystemExit):
        main()
    assert "--repo_id a name: must be USER/NAME" in capsys.readouterr().err
