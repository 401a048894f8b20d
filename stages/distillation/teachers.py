"""Where the teacher comes from: a checkpoint, or a configuration with random weights and a vocabulary of its own."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.activations import ACT2FN

from stages.cards.card import Card
from stages.core.artifacts import atomic_path, digest
from stages.core.errors import UserError
from stages.core.params import Teacher
from stages.core.reading import load_tokenizer, readable
from stages.core.runtime import attention_implementation
from stages.distillation.corpus import ROWS_PER_BATCH, read_texts
from stages.distillation.models import BertStates
from stages.distillation.pretraining import initialise_head
from stages.sources.models import resolve_model

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_ALPHABET = 1000
HEAD = "cls.predictions.transform.dense.weight"
SIZES = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
)

WAY_OUT = "`teacher.init` in params.yaml names another, and what came from the hub is fetched again"


@dataclass(frozen=True)
class Start:
    """A teacher before pre-training: model, tokenizer, pooler weights to hand on, and a digest of its origin."""

    model: BertStates
    tokenizer: PreTrainedTokenizerBase
    pooler: dict[str, torch.Tensor]
    origin: str


def resolve(settings: Teacher, text: Path, seed: int) -> Start:
    """Load or make the teacher that `teacher.init` names; `text`, a parquet file, is for a vocabulary to be made.

    Raises UserError for a checkpoint that is no BERT, or lacks a tokenizer, positions or an MLM head.
    """
    if settings.init == "config":
        model = random_teacher(settings.config, settings.vocab_size, seed)
        tokenizer = train_tokenizer(text, settings.vocab_size, model.config.max_position_embeddings)
        start = Start(model, tokenizer, {}, digest(model.config.to_dict(), sorted(tokenizer.get_vocab().items())))
    else:
        checkpoint = resolve_model(settings.init, settings.revision)
        model, new_head = load_teacher(checkpoint)
        if new_head and not settings.pretrain_steps:
            raise UserError(f"params.yaml: teacher.pretrain_steps is 0, but {settings.init} brings no MLM head")
        if new_head:
            initialise_head(model)
        start = Start(model, plain_tokenizer(checkpoint), pooler_weights(checkpoint), digest(checkpoint))
    if settings.block_length > start.model.config.max_position_embeddings:
        raise UserError(
            f"params.yaml: teacher.block_length {settings.block_length} exceeds the model's "
            f"{start.model.config.max_position_embeddings} positions"
        )
    return start


def save_teacher(start: Start, folder: Path, card: Card) -> None:
    """Write model, tokenizer, card, and the pooler, as published BERTs have it, for fine-tuning to start from."""
    model = BertForMaskedLM(start.model.config)
    model.load_state_dict(start.model.state_dict())
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary, state_dict={**model.state_dict(), **start.pooler})
        start.tokenizer.save_pretrained(temporary)
        card.write(temporary)


def load_teacher(checkpoint: Path) -> tuple[BertStates, bool]:
    """Load a BERT from a local folder, and whether its MLM head is new because the checkpoint brings none.

    Raises UserError if the checkpoint is no BERT encoder.
    """
    with readable(checkpoint, WAY_OUT):
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    if config.model_type != "bert" or config.is_decoder:
        raise UserError(
            f"params.yaml: teacher.init: {checkpoint} holds a {config.model_type} model; a BERT encoder is needed"
        )
    with readable(checkpoint, WAY_OUT):
        loaded: Any = BertStates.from_pretrained(
            checkpoint,
            attn_implementation=attention_implementation(),
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
    model, info = loaded
    missing = set(info["missing_keys"])
    absent = sorted(name for name in missing if name.startswith("bert."))
    if absent:
        raise UserError(f"params.yaml: teacher.init: {checkpoint} lacks weights of the encoder, such as {absent[0]}")
    return model, HEAD in missing


def random_teacher(settings: dict[str, int | float | str], vocab_size: int, seed: int) -> BertStates:
    """Make a BERT of `BertConfig` settings with random weights; UserError for settings that BERT does not know."""
    config = BertConfig()
    known = {name for name in vars(config) if name in BertConfig.__annotations__} - {"vocab_size"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UserError(
            f"params.yaml: teacher.config.{unknown[0]}: unknown key; allowed here: {', '.join(sorted(known))}"
        )
    values: dict[str, Any] = {"vocab_size": vocab_size, **settings}
    try:
        config = BertConfig(**values)
    except StrictDataclassError as error:
        raise UserError(f"params.yaml: teacher.config: {' '.join(str(error).split())}") from error
    for name in SIZES:
        if getattr(config, name) < 1:
            raise UserError(f"params.yaml: teacher.config.{name}: {getattr(config, name)}, expected at least 1")
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"params.yaml: teacher.config: hidden_size {config.hidden_size} is no multiple of "
            f"num_attention_heads {config.num_attention_heads}"
        )
    if config.hidden_act not in ACT2FN:
        allowed = ", ".join(sorted(ACT2FN))
        raise UserError(f"params.yaml: teacher.config.hidden_act: {config.hidden_act}, expected one of {allowed}")
    with torch.random.fork_rng(devices=[]):  # it is made on the CPU
        torch.manual_seed(seed)
        config._attn_implementation = attention_implementation()
        try:
            return BertStates(config)
        except (ValueError, RuntimeError) as error:  # such as a probability above 1
            raise UserError(f"params.yaml: teacher.config: {' '.join(str(error).split())}") from error


def plain_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer without the truncation and padding of its file; UserError if there is none."""
    tokenizer = load_tokenizer(checkpoint, WAY_OUT)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def train_tokenizer(text: Path, vocab_size: int, max_length: int) -> PreTrainedTokenizerBase:
    """Train an uncased WordPiece vocabulary on a parquet file's `text`; [unused] ones fill it up to `vocab_size`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = _alphabet(text, tokenizer.normalizer)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # The trainer numbers continuations in a hash map's order and breaks ties by number; a list fixes them.
        special_tokens=[*SPECIAL_TOKENS, *(f"##{letter}" for letter in alphabet if category(letter)[0] in "LMN")],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_texts(text, ROWS_PER_BATCH), trainer)
    vocabulary = tokenizer.get_vocab()
    names = sorted(vocabulary, key=vocabulary.__getitem__)[:vocab_size]
    names += [f"[unused{number}]" for number in range(vocab_size - len(names))]
    return BertTokenizer(vocab={name: index for index, name in enumerate(names)}, model_max_length=max_length)


def _alphabet(text: Path, normalizer: normalizers.Normalizer) -> list[str]:
    """Return the most frequent characters of the normalised text, at most `MAX_ALPHABET`, by their codes."""
    counts: Counter[str] = Counter()
    for documents in read_texts(text, ROWS_PER_BATCH):
        counts.update(normalizer.normalize_str(" ".join(documents)))
    letters = sorted(
        (letter for letter in counts if not letter.isspace()), key=lambda letter: (-counts[letter], letter)
    )
    return sorted(letters[:MAX_ALPHABET])


def pooler_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the pooler of a checkpoint, which MLM does not use but fine-tuning starts from; empty if it has none."""
    weights = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - not a mapping
                if "pooler.dense" in name:
                    weights["bert." + name[name.index("pooler") :]] = stream.get_tensor(name).float()
    return weights
