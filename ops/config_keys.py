"""What each key of the config means, where its section's own docstring does not list it.

Beside ``serve_app/config.py``, whose sections say what goes together; ``python -m ops.reference``
puts both into CONFIG.md, and a test asks for every key exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping

_AUTOSCALING: Mapping[str, str] = {
    "min_replicas": "Replicas that always run.",
    "max_replicas": "Replicas at the most.",
    "upscale_delay_s": "Seconds of more load before a replica is added.",
    "downscale_delay_s": "Seconds of less load before a replica is taken away.",
}
_BY_REQUESTS: Mapping[str, str] = {
    **_AUTOSCALING,
    "target_ongoing_requests": "Requests in flight per replica that the tier is scaled to.",
}
_FETCH: Mapping[str, str] = {
    "allow_hosts": "Hosts that pictures may come from: `images.example.com`, `*.example.com` for"
    " any name below it, with `:port` for other ports than the scheme's.",
    "allow_public": "Pictures may come from any public host, on its scheme's own port.",
    "allow_http": "Without TLS, too; never after a redirect from https.",
    "refused_networks": "Never connected to, besides the special ones: public ranges that a company"
    " uses inside, as `203.0.113.0/24`.",
    "max_request_bytes": "Of all pictures that one request has fetched.",
    "max_held_bytes": "Of all fetched pictures until they are decoded; beyond it, 503.",
    "max_requests": "That fetch at once; more get 503, so that others find room.",
    "max_per_request": "Pictures of one request that are fetched side by side.",
    "max_per_host": "Connections to one host.",
    "timeout_s": "For all pictures of a request, redirects and waits included.",
    "connect_timeout_s": "For one connection, its TLS handshake included.",
    "max_redirects": "Of one picture.",
}
_DOCUMENTS: Mapping[str, str] = {
    "enabled": "PDFs in `document_url` parts are taken, page by page as pictures; needs the extra"
    " `documents`.",
    "max_bytes": "Largest document as it is sent.",
    "max_pages": "That may be shown of one document; `gateway.max_pictures` counts them, too.",
    "dpi": "Dots per inch of a page where the request names none.",
}
_SECTIONS: Mapping[str, Mapping[str, str]] = {
    "model": {
        "path": "The checkpoint's folder, in Mistral's or Hugging Face's layout.",
        "name": "Under which it is served; the folder's name unless given.",
        "aliases": "Other names for it.",
        "untrained": "Weights are random: every surface that shows an answer says so.",
        "max_context_tokens": "Longest prompt and answer together; the model's own limit if null.",
        "default_max_tokens": "Of a request that names no limit.",
        "default_temperature": "Of a request that names none.",
        "price.input_nano_usd_per_token": "Nano-dollars for a token of a prompt.",
        "price.output_nano_usd_per_token": "Nano-dollars for a token of an answer.",
    },
    "gateway": {
        "host": "What the REST API listens on.",
        "port": "Of the REST API.",
        "auth": "Whether a key is asked for; false on loopback only.",
        "api_key_file": "The first key, made where missing; in the state folder unless given.",
        "max_body_bytes": "Largest request body.",
        "max_pictures": "Most pictures in a request.",
        "max_choices": "Most answers (`n`) in a request.",
        "ping_interval_s": "Silence in a stream before a comment keeps the connection open.",
        "max_ongoing_requests": "Requests in flight per gateway; more wait in Serve.",
        **{f"autoscaling.{key}": text for key, text in _BY_REQUESTS.items()},
    },
    "preprocess": {
        "max_picture_bytes": "Largest picture as it is sent.",
        "min_picture_side": "Smallest side of a picture, in pixels.",
        "num_cpus": "Booked with Ray per replica.",
        "max_ongoing_requests": "Requests in flight per replica.",
        **{f"fetch.{key}": text for key, text in _FETCH.items()},
        **{f"documents.{key}": text for key, text in _DOCUMENTS.items()},
        **{f"autoscaling.{key}": text for key, text in _BY_REQUESTS.items()},
    },
    "vision": {
        "device": "Where the encoder runs.",
        "dtype": "Of its weights; auto is bfloat16 on CUDA and float32 on CPU.",
        "kernels": "As the decoder's.",
        "threads": "CPU threads of a replica.",
        "num_cpus": "Booked with Ray per replica.",
        "num_gpus": "Booked with Ray per replica; a fraction shares a GPU with a decoder's rank.",
        "max_batch_patches": "Patches of one packed pass.",
        "feature_cache_bytes": "Features of encoded pictures that a replica keeps; 0 keeps none.",
        "max_ongoing_requests": "Pictures in flight per replica.",
        **{f"autoscaling.{key}": text for key, text in _AUTOSCALING.items()},
        "autoscaling.target_patches": "Patches, waiting or in a pass, per replica to scale to.",
    },
    "decoder": {
        "tensor_parallel": "Ranks that the model is cut over; one GPU each on CUDA.",
        "journal_folder": "Where rank 0 notes what it computed; in the state folder unless given.",
        "simulate.roofline": "Published model and hardware whose best step times are kept.",
        "simulate.kv_blocks": "KV blocks that the simulation pretends to have.",
        "device": "Where the ranks run.",
        "dtype": "Of weights and KV cache; auto is bfloat16 on CUDA and float32 on CPU.",
        "backend": "How ranks reach each other.",
        "threads_per_rank": "CPU threads of a rank.",
        "cpus_per_rank": "Booked with Ray per rank.",
        "gpus_per_rank": "Booked with Ray per rank; what is left of 1 may be the vision tier's.",
        "block_size": "Tokens of a KV block.",
        "kv_cache_bytes": "Of keys and values, per rank.",
        "max_batch_sequences": "Sequences computed side by side.",
        "max_step_tokens": "Tokens of one forward step, of prompts and answers together.",
        "max_waiting": "Requests that may wait for the batch; Serve keeps back more.",
        "prefix_cache": "Who shares what was computed for prompts that begin alike.",
        "feature_cache_bytes": "Features of pictures that rank 0 keeps; 0 keeps none.",
        "max_drafts": "Tokens guessed ahead per sequence and step.",
        "kernels": "What computes on a CPU: native is compiled once per machine, torch is slower.",
        "cuda_graphs": "Whether a GPU replays decode steps instead of launching each kernel.",
        "grammar.compile_s": "CPU seconds for one schema; also what a request waits for others'.",
        "grammar.compile_bytes": "Memory for compiling, once on trial and once for rank 0.",
        "grammar.cache_bytes": "Of grammars kept, for each group.",
        "token_timeout_s": "A group without a token for this long, while it should, is not ready.",
        "collective_timeout_s": "A rank silent for this long is an error.",
        **{f"autoscaling.{key}": text for key, text in _BY_REQUESTS.items()},
    },
    "accounting": {
        "database_password_file": "Read at start; the file holds the password and nothing else.",
        "sweep_interval_s": "Seconds between two rounds of the sweeper, which settles and audits.",
    },
    "ray": {
        "num_cpus": "What tiers may book on this machine, not its cores.",
        "tier_resources": "Tiers run only on nodes that offer `pixtral_<tier>`, as rendered ones.",
        "object_store_bytes": "Of shared memory, for pixels and features on their way.",
        "dashboard_port": "Of Ray's dashboard.",
        "gcs_port": "Of Ray's control store.",
        "metrics_port": "Where Ray shows this machine's metrics.",
    },
    "observe": {
        "enabled": "Start Prometheus with the system.",
        "port": "Of Prometheus.",
        "scrape_interval_s": "Seconds between two readings.",
        "retention_days": "How long readings are kept at most.",
        "retention_mb": "What they take on disk at most.",
    },
}
MEANINGS: Mapping[str, str] = {
    f"{section}.{key}": text for section, keys in _SECTIONS.items() for key, text in keys.items()
}
