"""Tokenizers of transformers' classes with a local vocabulary that splits the templates like Vicuna's tokenizer."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from transformers import AddedToken, BertTokenizer, LlamaTokenizer

LLAMA_PIECES = 32_000
BERT_PIECES = 30_522
# Frequent words of captions. Other words are split into pieces of up to four letters.
_PHOTOGRAPHED = (
    "a about above and are at baseball bathroom beach bear bed bench bicycle bird black blue boat boy building bus "
    "car cat chair child clock couch cow describe dog elephant field fire food front game giraffe girl grass green "
    "group holding horse hydrant image in is it kite kitchen large laptop left man men motorcycle next of on orange "
    "parked people person phone picture pizza plane plate player playing red riding right road room sheep sign "
    "sitting skate skis sky small snow standing stop street surfboard table tennis the this to toilet top traffic "
    "train tree truck two umbrella vase walking water wave what white window with woman women yellow young zebra"
)
WORDS = tuple(_PHOTOGRAPHED.split())
# Vicuna's vocabulary splits "USER", "ASSISTANT" and a "Describe" behind a line break into these.
TEMPLATE_PIECES = ("▁US", "ER", "▁A", "SS", "IST", "ANT", "▁Des", "Des", "cribe")


def llama_tokenizer(added: Sequence[str], pad: str, bos: str = "<s>", unk: str = "<unk>") -> LlamaTokenizer:
    """Return a Llama tokenizer of 32,000 pieces with byte fallback and BOS; `added` follow from id 32,000 on."""
    pieces = _llama_vocabulary()
    tokenizer = LlamaTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[(piece[:-1], piece[-1]) for piece in pieces[pieces.index(f"▁{WORDS[0]}") :]],
        bos_token=bos,
        unk_token=unk,
        add_bos_token=True,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in added])
    tokenizer.pad_token = pad
    return tokenizer


def qformer_tokenizer() -> BertTokenizer:
    """Return a BERT tokenizer of 30,522 pieces, followed by [DEC], like InstructBLIP's Q-Former."""
    signs = string.ascii_lowercase + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    pieces += [word for word in WORDS if len(word) > 1]
    pieces += [f"[unused{index}]" for index in range(BERT_PIECES - len(pieces))]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, truncation_side="left")
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


@cache
def _llama_vocabulary() -> tuple[str, ...]:
    return tuple(itertools.islice(dict.fromkeys(_llama_pieces()), LLAMA_PIECES))


def _llama_pieces() -> Iterator[str]:
    yield from ("<unk>", "<s>", "</s>")
    yield from (f"<0x{byte:02X}>" for byte in range(256))
    yield from ("▁", *(sign for sign in string.printable if sign.isprintable() and sign != " "))
    for word in (*(f"▁{word}" for word in WORDS), *TEMPLATE_PIECES):
        yield from _beginnings(word)
    for length in (1, 2, 3, 4):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "▁" + "".join(letters)


def _beginnings(word: str) -> Iterable[str]:
    return (word[:length] for length in range(2, len(word) + 1))
