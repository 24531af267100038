"""The tokenizer of the embedded population: a byte-level BPE that takes digits one by one."""

from itertools import islice
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from aim_exp.population.embedded.corpus import training_text
from aim_exp.population.embedded.items import KINDS, training_examples

VOCABULARY_SIZE = 768
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2

EXAMPLES_PER_KIND = 1000


def train_tokenizer() -> Tokenizer:
    """A tokenizer of the training text and examples, the same for every population seed.

    It puts `<s>` before every text, and loses nothing: decoding gives the text back.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def _sample() -> list[str]:
    examples = (
        example
        for kind in KINDS
        for example in islice(training_examples(kind, Random(kind)), EXAMPLES_PER_KIND)
    )
    return [*training_text(), *(example.prompt + example.answer for example in examples)]
