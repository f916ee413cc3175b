"""The engine beside transformers and the machine's limits: ``pixtral bench engine``."""
