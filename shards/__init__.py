"""The model, cut in ranks: configs, arithmetic, paged KV cache, scheduler, sampler, engine.

This package knows neither Ray nor HTTP. ``python -m shards DIR --tp 2 "question"`` runs it offline.
"""
