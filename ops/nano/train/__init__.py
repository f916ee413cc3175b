"""How pixtral-nano is trained: ``python -m ops.nano.train --help``.

Two lessons. ``vision`` teaches the encoder alone what lies in every patch, which costs no text;
``answers`` teaches encoder, projector and decoder together to answer. Both train the modules that
serve (``shards``), and both go on from where they were stopped.
"""
