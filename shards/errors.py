"""Every error the engine raises. Standard library only.

    ShardsError
    ├── ModelConfigError    params.json / config.json is unservable (key and value named)
    ├── CheckpointError     tensors missing, unexpected or misshapen (names listed)
    ├── PlanError           the model cannot be cut or does not fit as asked (numbers given)
    ├── KernelError         the C++ kernels cannot be built or loaded here (reason given)
    ├── RequestError        a request that can never be run (field named by ``param``)
    │   └── ContextLengthError   prompt + max_tokens exceed what the model or the cache can hold
    ├── QueueFullError      as many requests wait as may wait
    └── GroupError          a rank died or did not answer in time

All of them pickle, so they cross process borders whole.
"""

from __future__ import annotations


class ShardsError(Exception):
    """Root of the engine's errors."""


class ModelConfigError(ShardsError):
    """A model description that cannot be served; the message names file, key and value."""


class CheckpointError(ShardsError):
    """Weights that do not match the config; the message names the tensors."""


class PlanError(ShardsError):
    """A cut or a memory plan that cannot work; the message gives the numbers."""


class KernelError(ShardsError):
    """Native kernels that this machine cannot build, load or use; the message says why."""


class GroupError(ShardsError):
    """A rank of the tensor-parallel group died, wedged or timed out."""


class QueueFullError(ShardsError):
    """The engine's waiting room is full; the same request may succeed later."""


class RequestError(ShardsError):
    """A request that can never be run.

    Args:
        param: the field at fault, as the caller spells it (``sampling.top_p`` → ``top_p``).
        message: one sentence naming the value and what is allowed.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.param = param
        self.message = message

    def __str__(self) -> str:
        return f"{self.param}: {self.message}"


class ContextLengthError(RequestError):
    """Prompt and answer together exceed the context or the KV cache."""
