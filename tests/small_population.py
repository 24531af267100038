"""`population._target_=small_population.Small`: the embedded one, of two layers, in seconds.

Whichever process builds it imports this module, and so trains the same.
"""

from dataclasses import replace

from transformers import LlamaForCausalLM

from aim_exp.population.embedded import phases, trainer
from aim_exp.population.sources import EmbeddedPopulation as Small

__all__ = ["Small"]

config = trainer.new_model().config
config.num_hidden_layers, config.hidden_size, config.intermediate_size = 2, 48, 96
trainer.new_model = lambda: LlamaForCausalLM(config)
phases.BASE = replace(phases.BASE, steps=60)
phases.EXPERTS = tuple(replace(phase, steps=30) for phase in phases.EXPERTS)
