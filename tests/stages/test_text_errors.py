"""Invalid texts, tokenizers and models: status 2, one line, no traceback, no partial run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import FAST, Outcome

from warmstart.run.checksums import write_checksums

TINY = ("backbone=tiny", "data.tokenizer.vocabulary=200", "data.tokenizer.context=32", *FAST)
FINETUNE = ("stage=finetune", "init=scratch")
COLUMNS = ("data.text=review", "data.target=verdict")
ROWS = [{"review": f"the {'fine' if n % 2 else 'dull'} plot {n}", "verdict": f"{n % 2}"} for n in range(40)]
LONG = b"review,verdict\n" + b"".join(b"%s,%d\n" % (b"plot " * (90 if n in (3, 5) else 3), n % 2) for n in range(40))
GOOD = "review,verdict\n" + "".join(f"{row['review']},{row['verdict']}\n" for row in ROWS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reviews(tmp_path: Path) -> tuple[str, ...]:
    """The words that choose a small table of texts."""
    (tmp_path / "reviews.csv").write_text(GOOD)
    return ("experiment=text", f"data.root={tmp_path / 'reviews.csv'}", *COLUMNS, *TINY)


def refused(outcome: Outcome, *parts: str) -> None:
    """The outcome is a clear error of one line that says each of `parts`."""
    assert outcome.status == 2, outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.error.splitlines()) == 1
    assert len(outcome.error) < 500
    for part in parts:
        assert part in outcome.error, outcome.error


def lines(rows: list[dict]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def edited(row: int, **changes: object) -> list[dict]:
    return [{**entry, **changes} if number == row else entry for number, entry in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("name", "content", "words", "parts"),
    [
        ("a.csv", b"", (), ("a.csv is empty",)),
        ("a.csv", b"review,verdict\n", (), ("a.csv has no rows",)),
        ("a.csv", GOOD.encode().replace(b"dull", b"d\xe9"), (), ("a.csv is not UTF-8", "byte 20 is 0xe9")),
        ("a.csv", GOOD.encode().replace(b"dull", b"d\0"), (), ("a.csv is binary", "byte 20")),
        ("a.csv", GOOD.replace(",", " ").encode(), (), ("no column", "data.separator=")),
        ("a.csv", b"review,verdict\n" + b"a nice, warm film,1\na grim, cold film,0\n" * 20, (), ("a.csv", "row 1")),
        ("a.csv", b"review,verdict\n" + b"a film,1,\na plot,0,\n" * 20, (), ("a.csv", "row 1")),
        ("a.jsonl", lines(ROWS[:2]).encode() + b"{", (), ("a.jsonl", "line 3")),
        ("a.jsonl", lines(edited(4, review="a \ud800")).encode(), (), ("a.jsonl", "surrogate")),
        ("a.jsonl", lines(edited(4, review=None)).encode(), (), ("a.jsonl", "row 5", "review", "empty")),
        ("a.jsonl", lines(edited(4, review={"a": 7})).encode(), (), ("a.jsonl", "review", "not text")),
        ("a.parquet", b"PAR1", (), ("a.parquet cannot be read",)),
        ("a.csv", GOOD.encode(), ("data.text=revue",), ("no column revue", "data.text", "review")),
        ("a.csv", GOOD.encode(), ("data.target=label",), ("no column label", "data.target")),
        ("a.csv", GOOD.encode(), ("data.target=null",), ("data.target=null",)),
        ("a.csv", GOOD.replace(",1\n", ",0\n").encode(), (), ("one class (0)",)),
        ("a.csv", LONG, ("data.tokenizer.too_long=error",), ("1 of 28 rows", "starts with 'plot plot", "context=32")),
        ("a.csv", GOOD.encode(), ("objective=regression", "data.target=review"), ("row 1", "not a number")),
        ("a.csv", GOOD.encode(), ("objective=token_classification",), ("tags need lists",)),
        ("a.csv", GOOD.encode(), ("objective=span_qa",), ("objective=span_qa", "data=text_table")),
        ("a.csv", GOOD.encode(), ("data.tokenizer.too_long=cut",), ("too_long=cut",)),
        ("a.csv", GOOD.encode(), ("data.tokenizer=null",), ("data.tokenizer",)),
        ("a.csv", GOOD.encode(), ("trainer.val_check_interval=100",), ("val_check_interval",)),
        ("a.csv", GOOD.encode(), ("trainer.val_check_interval=0",), ("val_check_interval",)),
        ("a.csv", GOOD.encode(), ("data/augment=noise",), ("data/augment=noise", "is text")),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_broken_tables_of_texts(
    name: str, content: bytes, words: tuple[str, ...], parts: tuple[str, ...], cli, tmp_path
):
    (tmp_path / name).write_bytes(content)
    outcome = cli(*FINETUNE, "experiment=text", f"data.root={tmp_path / name}", *COLUMNS, *TINY, *words)
    refused(outcome, *parts)
    assert not list(outcome.folder.rglob("*"))


def test_a_folder_of_tables_names_the_file_that_is_broken(cli, tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_bytes(GOOD.encode().replace(b"dull", b"d\xe9"))
    words = ("experiment=text", f"data.root={tmp_path / 'set'}", *COLUMNS, *TINY)
    refused(cli(*FINETUNE, *words), "train.csv", "UTF-8")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"\n \n", ("a.txt is empty",)),
        (b"abc\0", ("a.txt is binary", "byte 3")),
        (b"caf\xe9\n", ("a.txt is not UTF-8", "byte 3 is 0xe9")),
        ("hello".encode("utf-16"), ("a.txt is not UTF-8", "byte 0")),
        (b"too short\n", ("a.txt", "too few")),
    ],
)
def test_broken_text_files(content: bytes, parts: tuple[str, ...], cli, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(content)
    words = ("experiment=text", "data=text_files", f"data.root={tmp_path / 'a.txt'}", *TINY)
    outcome = cli("stage=pretrain", *words)
    refused(outcome, *parts)
    assert not list(outcome.folder.rglob("*"))


def test_plain_texts_have_nothing_to_predict(cli, tmp_path: Path):
    (tmp_path / "a.txt").write_text("enough of this\n" * 50)
    words = ("experiment=text", "data=text_files", f"data.root={tmp_path / 'a.txt'}", *TINY)
    refused(cli(*FINETUNE, *words), "objective=classification", "data=text_files offers none")


CONTEXTS = [f"The town of Place{n} was founded in {1800 + n} by a miller named Person{n}." for n in range(8)]


def squad(place: str, value: object) -> dict:
    """Questions laid out as SQuAD's, one place of one of them changed; ... takes it away."""
    articles = []
    for number, context in enumerate(CONTEXTS):
        answer = {"text": f"Person{number}", "answer_start": context.index("Person")}
        question = {"id": str(number), "question": f"Who founded Place{number}?", "answers": [answer]}
        articles.append({"title": str(number), "paragraphs": [{"context": context, "qas": [question]}]})
    paragraph = articles[3]["paragraphs"][0]
    home = {"context": paragraph, "qas": paragraph, "question": paragraph["qas"][0]}
    node = home.get(place, paragraph["qas"][0]["answers"][0])
    node[place] = value
    if value is ...:
        del node[place]
    return {"data": articles}


@pytest.mark.parametrize(
    ("place", "value", "parts"),
    [
        ("text", "nobody", ("row 4", "'nobody' is not in its context", "1 of 8")),
        ("answer_start", ..., ("answer_start",)),
        ("answer_start", "x", ("row 4", "answer_start")),
        ("context", ..., ("context",)),
        ("context", "The mill of Person3 \ud800.", ("a.json", "surrogate")),
        ("qas", "x", ("not have the format of SQuAD",)),
        ("question", " ", ("row 4", "question", "empty")),
        ("question", "why " * 200, ("a question has", "data.tokenizer.context=32")),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
def test_broken_questions(place: str, value: object, parts: tuple[str, ...], cli, tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(squad(place, value)))
    words = ("experiment=xquad", f"data.root={tmp_path / 'a.json'}", "data.tokenizer.stride=8", *TINY)
    outcome = cli(*FINETUNE, *words)
    refused(outcome, *parts)
    assert not list(outcome.folder.rglob("*"))


@pytest.mark.parametrize(
    ("words", "tags", "parts"),
    [
        (["a", "b"], ["X"], ("row 3", "2 words but 1 tags")),
        ([], [], ("row 3", "words", "empty")),
        (["a", "b"], "X Y", ("tags", "lists")),
    ],
)
def test_broken_tags(words: list[str], tags: object, parts: tuple[str, ...], cli, tmp_path: Path):
    rows = [{"words": ["a", "b", "c"], "tags": ["X", "Y", "X"]} for _ in range(20)]
    rows[2] = {"words": words, "tags": tags}
    (tmp_path / "a.jsonl").write_text(lines(rows))
    columns = ("data.text=words", "data.target=tags", "objective=token_classification")
    refused(cli(*FINETUNE, "experiment=text", f"data.root={tmp_path / 'a.jsonl'}", *columns, *TINY), *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("objective=causal",), ("objective=causal", "backbone.causal=true")),
        (("backbone.causal=true",), ("objective=masked", "can hide positions")),
        (("objective=denoise",), ("objective=denoise", "text")),
        (("objective=contrastive",), ("objective=contrastive", "data.augment")),
        (("objective=classification",), ("data.pack",)),
        (("data.pack=4",), ("data.pack=4", "from 8")),
        (("data.separate=maybe",), ("data.separate=maybe",)),
        (("data.pack=null", "data.separate=true"), ("data.separate", "data.pack")),
        (("data.tokenizer.vocabulary=17",), ("data.tokenizer.vocabulary=17",)),
        (("data/tokenizer=bpe", "data.tokenizer.vocabulary=17"), ("data.tokenizer.vocabulary=17",)),
        (("data.tokenizer.context=4",), ("context=4",)),
        (("data.tokenizer.stride=30",), ("stride=30",)),
        (("backbone=huggingface",), ("backbone=huggingface", "init=hf:")),
        (("backbone.position=alibi",), ("backbone.position=alibi", "rotary")),
        (("init=random:latest",), ("init=random:latest",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_incompatible_components(words: tuple[str, ...], parts: tuple[str, ...], cli, reviews: tuple[str, ...]):
    outcome = cli("stage=pretrain", *reviews, *words)
    refused(outcome, *parts)
    assert not list(outcome.folder.rglob("*"))


@pytest.mark.parametrize(
    "words",
    [
        ("stage=pretrain", "experiment=digits", "data.pack=32"),
        ("stage=pretrain", "experiment=digits", "data.separate=true"),
        ("stage=transfer", "experiment=digits", "pretrain.objective=masked"),
        ("stage=finetune", "init=scratch", "experiment=sst2", "objective=span_qa"),
        ("stage=finetune", "init=scratch", "experiment=xquad", "objective=classification"),
    ],
    ids=lambda value: " ".join(value),
)
def test_words_of_texts_where_there_are_none_and_other_tasks_words(words: tuple[str, ...], cli):
    outcome = cli(*words, "visualization=[]", "trainer.max_epochs=1")
    refused(outcome, words[-1].split("=")[0])
    assert not list(outcome.folder.rglob("*"))


def test_texts_of_which_nothing_can_be_hidden(cli, tmp_path: Path):
    (tmp_path / "a.csv").write_text("review,verdict\n" + "[MASK] [SEP],0\n[SEP] [SEP],1\n" * 20)
    words = ("experiment=text", f"data.root={tmp_path / 'a.csv'}", *COLUMNS, *TINY, "data.pack=null")
    outcome = cli("stage=pretrain", *words)
    assert outcome.status in (0, 2), outcome.err
    assert "Traceback" not in outcome.err


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An encoder and a decoder of transformers, each with a tokenizer of its own."""
    import transformers
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    transformers.logging.disable_progress_bar()
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    kinds = {
        "bert": transformers.BertForMaskedLM(
            transformers.BertConfig(vocab_size=80, max_position_embeddings=40, **small)
        ),
        "gpt2": transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=60, n_positions=40, n_embd=16, n_layer=1, n_head=2, eos_token_id=3)
        ),
    }
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fine", "dull", "plot", *map(str, range(40))]
    found = {}
    for kind, model in kinds.items():
        words = [*names, *(f"w{n}" for n in range(model.config.vocab_size - len(names)))]
        tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        found[kind] = tmp_path_factory.mktemp(kind)
        model.save_pretrained(found[kind])
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=40, **{f"{role}_token": token for role, token in roles.items()}
        ).save_pretrained(found[kind])
    return found


QUERY = "bert.encoder.layer.0.attention.self.query.weight"


def settings(**changes: object) -> Callable[[Path, dict[str, Path]], None]:
    def change(folder: Path, models: dict[str, Path]) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def weights(**changes: object) -> Callable[[Path, dict[str, Path]], None]:
    def change(folder: Path, models: dict[str, Path]) -> None:
        tensors = load_file(folder / "model.safetensors")
        shape = changes.get("shape")
        tensors |= {QUERY: torch.zeros(shape)} if shape else {}
        save_file(
            {n: t for n, t in tensors.items() if shape or n != QUERY}, folder / "model.safetensors", {"format": "pt"}
        )

    return change


def without(name: str) -> Callable[[Path, dict[str, Path]], None]:
    return lambda folder, models: [path.unlink() for path in folder.glob(name)]


def holding(name: str, content: bytes) -> Callable[[Path, dict[str, Path]], None]:
    return lambda folder, models: (folder / name).write_bytes(content)


def tokenizer_of(kind: str) -> Callable[[Path, dict[str, Path]], None]:
    return lambda folder, models: [shutil.copy(path, folder) for path in models[kind].glob("token*.json")]


@pytest.mark.parametrize(
    ("kind", "change", "parts"),
    [
        ("bert", settings(auto_map={"AutoModel": "own.Model"}), ("auto_map", "not allowed")),
        ("bert", settings(_attn_implementation="someone/kernel"), ("attn_implementation",)),
        ("bert", settings(model_type="own"), ("model_type=own",)),
        ("bert", settings(model_type="t5", is_encoder_decoder=True), ("cannot be loaded as AutoModelForSeq2SeqLM",)),
        ("bert", settings(num_attention_heads=5), ("number of attention heads (5)",)),
        ("bert", without("config.json"), ("no config.json",)),
        ("bert", holding("config.json", b"{"), ("config.json cannot be read",)),
        ("bert", without("model.safetensors"), ("no model.safetensors", "pickle")),
        ("bert", holding("model.safetensors", b"junk" * 99), ("model.safetensors is truncated or damaged",)),
        ("bert", weights(), (QUERY.removeprefix("bert."),)),
        ("bert", weights(shape=(3, 3)), (QUERY.removeprefix("bert."),)),
        ("bert", without("token*.json"), ("no tokenizer",)),
        ("bert", holding("tokenizer.json", b"{}"), ("okenizer",)),
        ("gpt2", tokenizer_of("bert"), ("80 tokens", "60 rows", "belongs to another model")),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_a_hugging_face_folder_that_cannot_be_used(
    kind: str, change: Callable, parts: tuple[str, ...], cli, reviews: tuple[str, ...], models, tmp_path: Path
):
    folder = Path(shutil.copytree(models[kind], tmp_path / "folder"))
    change(folder, models)
    outcome = cli("stage=finetune", *reviews[:4], "data.tokenizer.context=32", *FAST, f"init=hf:{folder}")
    refused(outcome, f"{folder}", *parts)
    assert not list(outcome.folder.rglob("*"))


def test_models_of_hugging_face_do_what_they_were_made_for_only(cli, reviews: tuple[str, ...], models):
    words = ("stage=pretrain", *reviews[:4], "data.tokenizer.context=32", "data.pack=null", *FAST)
    refused(cli(*words, f"init=hf:{models['bert']}", "objective=causal"), "objective=causal", "causal attention")
    refused(cli(*words, f"init=hf:{models['gpt2']}"), "objective=masked", "hide positions")
    refused(cli(*words, f"init=hf:{models['bert']}", "data.tokenizer.context=64"), "64", "40 positions", "context=40")


def test_a_prompt_beyond_a_models_positions(cli, reviews: tuple[str, ...], models):
    words = ("stage=pretrain", *reviews[:4], "data.tokenizer.context=32", "data.pack=null", *FAST)
    pretrained = cli(*words, f"init=hf:{models['gpt2']}", "objective=causal")
    assert pretrained.status == 0, pretrained.err
    run = f"run={pretrained.run('pretrain')}"
    refused(cli("stage=generate", "experiment=text", run, f"prompt='{'plot ' * 50}'", "length=3"), "prompt", "40")


def test_pooling_that_transformers_has_no_class_for_is_not_exported(cli, reviews: tuple[str, ...], models):
    words = (*reviews[:4], "data.tokenizer.context=32", *FAST, f"init=hf:{models['bert']}", "backbone.pooling=mean")
    tuned = cli("stage=finetune", *words)
    assert tuned.status == 0, tuned.err
    refused(cli("stage=export", "experiment=text"), "backbone.pooling=cls")
    assert not list(tuned.folder.glob("export/*/*"))


def test_predictions_generation_and_export_of_what_cannot_be(cli, reviews: tuple[str, ...], tmp_path: Path):
    pretrained = cli("stage=pretrain", *reviews, "data.pack=null")
    assert cli("stage=finetune", *reviews).status == 0
    inputs = {
        "wrong.csv": (b"text\na plot\n", ("no column review", "text")),
        "empty.csv": (b"", ("empty.csv is empty",)),
        "head.csv": (b"review\n", ("head.csv has no rows",)),
        "gap.csv": (b"review,n\na plot,1\n,2\n", ("row 2", "empty")),
        "latin.txt": (b"caf\xe9\n", ("latin.txt is not UTF-8", "byte 3")),
        "blank.txt": (b"\n", ("blank.txt is empty",)),
    }
    for name, (content, parts) in inputs.items():
        (tmp_path / name).write_bytes(content)
        refused(cli("stage=predict", "experiment=text", f"input={tmp_path / name}"), *parts)
    assert not list(pretrained.folder.glob("predict/*/*"))

    refused(cli("stage=generate", "experiment=text", "prompt=plot"), "objective=causal")
    export = ("stage=export", "experiment=text")
    refused(cli(*export, f"folder={tmp_path}"), f"folder={tmp_path} exists")
    refused(cli(*export, "format=onnx"), "format=onnx")
    assert cli("stage=pretrain", "experiment=digits", *FAST).status == 0
    refused(cli("stage=export", "experiment=digits"), "backbone=mlp")


def test_an_unquoted_comma_in_a_text_to_predict_for_is_not_a_column(cli, reviews: tuple[str, ...], tmp_path: Path):
    assert cli(*FINETUNE, *reviews).status == 0
    (tmp_path / "comma.csv").write_text("review,n\na nice, warm film,1\n")
    refused(cli("stage=predict", "experiment=text", f"input={tmp_path / 'comma.csv'}"), "comma.csv", "row 1")


def test_an_export_touches_nothing_but_its_own_folder(cli, reviews: tuple[str, ...], tmp_path: Path):
    assert cli(*FINETUNE, *reviews).status == 0
    (tmp_path / ".mine.tmp").mkdir()
    (tmp_path / ".mine.tmp" / "notes").write_text("keep")
    cli("stage=export", "experiment=text", f"folder={tmp_path / 'mine'}")
    assert (tmp_path / ".mine.tmp" / "notes").exists()


def test_an_export_to_where_no_folder_can_be(cli, reviews: tuple[str, ...], tmp_path: Path):
    assert cli(*FINETUNE, *reviews).status == 0
    folder = tmp_path / "reviews.csv" / "model"
    refused(cli("stage=export", "experiment=text", f"folder={folder}"), "folder=", "reviews.csv")


def test_questions_without_a_context_are_not_answered(cli, tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(squad("text", "Person3")))
    words = ("experiment=xquad", f"data.root={tmp_path / 'a.json'}", *TINY, "data.tokenizer.stride=8")
    tuned = cli(*FINETUNE, *words)
    assert tuned.status == 0, tuned.err
    (tmp_path / "q.csv").write_text("question\nwho?\n")
    refused(cli("stage=predict", "experiment=xquad", f"input={tmp_path / 'q.csv'}"), "no column context", "question")
    (tmp_path / "long.csv").write_text(f"question,context\n{'why ' * 99},A mill.\n")
    outcome = cli("stage=predict", "experiment=xquad", f"input={tmp_path / 'long.csv'}")
    refused(outcome, "a question has", "'why why")


def test_a_file_of_questions_that_can_be_trained_on_can_be_answered(cli, tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(squad("text", "Person3")))
    words = ("experiment=xquad", f"data.root={tmp_path / 'a.json'}", *TINY, "data.tokenizer.stride=8")
    assert cli(*FINETUNE, *words).status == 0
    answered = cli("stage=predict", "experiment=xquad", f"input={tmp_path / 'a.json'}")
    assert answered.status == 0, answered.err


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("tokenizer", "{}", ("preprocessor", "damaged")),
        ("tokenizer", None, ("preprocessor", "damaged")),
        ("roles", [1], ("preprocessor", "damaged")),
        ("context", "x", ("preprocessor", "damaged")),
        ("kind", "sound", ("unknown kind of preprocessor sound",)),
        ("word", "filmish", ("preprocessor.json",)),
        ("file", "smaller", ("stem.embedding.weight", "incompatible")),
    ],
)
def test_a_saved_tokenizer_that_is_damaged_or_anothers(
    key: str, value: object, parts: tuple[str, ...], cli, reviews: tuple[str, ...], tmp_path: Path
):
    base = cli("stage=pretrain", *reviews, "data.pack=null").run("pretrain") / "model"
    bare = Path(shutil.copytree(base, tmp_path / "bare"))
    path = bare / "preprocessor.json"
    state = json.loads(path.read_text())
    if key == "word":
        state["tokenizer"] = state["tokenizer"].replace('"plot"', f'"{value}"')
    elif key == "file":
        other = cli("stage=pretrain", *reviews, "data.pack=null", "data/tokenizer=characters")
        state = json.loads((other.run("pretrain") / "model" / "preprocessor.json").read_text())
    else:
        state[key] = value
    path.write_text(json.dumps(state))
    if key != "word":  # as one who takes the checksums again
        write_checksums(bare)
    refused(cli("stage=finetune", *reviews, f"init={bare}"), *parts)


def test_a_cache_that_cannot_be_used(cli, reviews: tuple[str, ...], own_cache: Path):
    words = ("stage=pretrain", *reviews, "data.pack=null")
    own_cache.write_text("a file")
    refused(cli(*words), "WARMSTART_CACHE", str(own_cache))
    own_cache.unlink()
    assert cli(*words).status == 0
    for path in own_cache.glob("tokens/*/values.npy"):
        path.write_bytes(path.read_bytes()[:50])
    again = cli(*words)
    assert again.status in (0, 2), again.err
    assert "Traceback" not in again.err


def test_a_table_of_categories_is_a_table_of_texts(cli, tmp_path: Path):
    frame = pd.DataFrame(ROWS).astype({"review": "category"})
    frame.to_parquet(tmp_path / "a.parquet")
    words = ("experiment=text", f"data.root={tmp_path / 'a.parquet'}", *COLUMNS, *TINY)
    assert cli(*FINETUNE, *words).status == 0
