"""What a process of vLLM's that holds weights can do besides: replace them.

An engine keeps its weights as its kernels take them; vLLM's own reloading, layer by layer, takes
them as checkpoints have them and puts the result where the old ones were.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mapped_tensors import MappedTensors
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)


class VllmWeights:
    """Mixed into vLLM's worker; its methods are called in each process that holds a part."""

    vllm_config: Any
    model_runner: Any
    mapped = MappedTensors()

    def begin_weights(self, announced: Mapping[str, Sequence[Any]]) -> None:
        """The tensors announced, name to (dtype, shape, ...), will come."""
        model = self.model_runner.get_model()
        self.mapped.begin(announced)
        self._to_load = {name for name, _ in model.named_parameters()}
        with set_current_vllm_config(self.vllm_config):
            initialize_layerwise_reload(model)

    def take_weights(self, path: str, come: Sequence[tuple[str, int]]) -> None:
        """Load those that have come to the memory at `path`.

        Copies of them: a layer keeps what it was given until it has all.
        """
        pairs = ((name, view.clone()) for name, view in self.mapped.views(path, come))
        with set_current_vllm_config(self.vllm_config):
            self._to_load -= self.model_runner.get_model().load_weights(pairs) or self._to_load

    def end_weights(self) -> None:
        """Put the last layers in place. RuntimeError unless every parameter has been loaded."""
        self.mapped.end()
        model = self.model_runner.get_model()
        if self._to_load:
            names = ", ".join(sorted(self._to_load)[:3])
            raise RuntimeError(f"the stream left {names} without weights")
        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(model, self.model_runner.model_config)
            for head in model.modules():
                # One that is the embedding was given nothing, but may have packed it for itself.
                if isinstance(head, ParallelLMHead):
                    head.quant_method.process_weights_after_loading(head)
