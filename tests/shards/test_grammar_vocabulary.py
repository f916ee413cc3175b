"""The grammar's idea of every id, for both tokenizers."""

from __future__ import annotations

from shards.grammar_recipe import vocabulary_info


def test_every_id_spells_the_same_for_the_grammar_and_the_caller(tokenizer):
    vocabulary = tokenizer.vocabulary
    info = vocabulary_info(vocabulary)
    assert (
        info.vocab_size
        == len(vocabulary)
        == {"sentencepiece": 32768, "tekken": 131072}[tokenizer.family]
    )
    spelled = info.decoded_vocab
    wrong = [
        token_id
        for token_id, piece in enumerate(vocabulary.pieces)
        if spelled[token_id] != (b"" if token_id in vocabulary.control_ids else piece)
    ]
    assert wrong == []


def test_byte_pieces_are_the_bytes_they_name(tokenizer):
    vocabulary = tokenizer.vocabulary
    spelled = vocabulary_info(vocabulary).decoded_vocab
    single = {
        spelled[token_id] for token_id in range(len(vocabulary)) if len(spelled[token_id]) == 1
    }
    assert single == {bytes([value]) for value in range(256)}
    assert len(vocabulary.byte_ids) == (256 if tokenizer.family == "sentencepiece" else 0)


def test_control_ids_spell_nothing_and_only_eos_ends(tokenizer):
    vocabulary = tokenizer.vocabulary
    info = vocabulary_info(vocabulary)
    assert info.stop_token_ids == [vocabulary.eos_id]
    assert vocabulary.control_ids == {*info.special_token_ids, vocabulary.eos_id}
