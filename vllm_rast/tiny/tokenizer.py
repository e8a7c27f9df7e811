"""The tokenizer of all four models: one token per word of the world, one token per byte for everything else."""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vllm_rast.tiny.world import FAMILIES, PEOPLE, THINGS, Question

EOS = "<|endoftext|>"
PAD = "<|pad|>"
# A word, a digit and a mark each take the space before them along; newlines stand alone.
PIECES = r" ?\\[A-Za-z]+\{|'s| ?[A-Za-z]+| ?[0-9]|\s| ?[^\sA-Za-z0-9]+"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{ message.content + '\\n' }}"
    "{%- elif message.role == 'user' -%}{{ 'Question:\\n' + message.content + '\\nAnswer:\\n' }}"
    "{%- else -%}{{ \"Let's think step by step.\\n\" + message.content + eos_token + '\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    '{%- if add_generation_prompt -%}{{ "Let\'s think step by step.\\n" }}{%- endif -%}'
)


def _texts() -> list[str]:
    """Texts that together hold every word of the world."""
    texts = [f"{d} {d} \\boxed{{{d}}}." for d in range(10)] + ["".join(f" {word}" for word in THINGS + PEOPLE)]
    for family in FAMILIES:
        for wording in (0, 1):
            for person in PEOPLE:
                question = Question(family, 0, (0, 1, 2), (1, -1, 1), person, wording)
                texts.append(question.prompt + question.step_text(0, 0, 0) + " " + question.step_text(1, 0, 0))
                texts.append(question.step_text(1, 0, 0))
    texts += [
        "So the answer is \\boxed{0}. So the answer is 0.",
        "The answer is",
        "It is probably",
        "Hard to say, perhaps",
    ]
    return [*texts, "\\boxed{0}"]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, so every text encodes and decodes to itself; words come from the world, not from merges."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {EOS: 0, PAD: 1}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    words = {piece for text in _texts() for piece in re.findall(PIECES, text)}
    for word in sorted(words):
        symbols = byte_level.pre_tokenize_str(word)[0][0]
        vocabulary.setdefault(symbols, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECES), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
