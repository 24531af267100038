"""The statistic against slow float64 code, and what measuring it leaves alone."""

from collections import Counter
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from aim_exp.aim.measure import CACHED_ELEMENTS, Meters, measure
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.live import LiveModel

G = torch.Generator().manual_seed(0)
BLOCKS = torch.randint(3, 700, (3, 32), generator=G)


class CalledOperators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def live(tiny_population: Path) -> LiveModel:
    return LiveModel(tiny_population / "base", "float32", "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_means_over_many_tokens(dtype: torch.dtype) -> None:
    scale = 10.0 ** torch.linspace(-6, 3, 300)
    inputs = [(scale * torch.randn(1, n, 300, generator=G)).to(dtype) for n in (4000, 1, 999)]
    assert inputs[0].numel() > 4 * CACHED_ELEMENTS
    meters = Meters()
    for x in inputs:
        meters.add("a.weight", 1, x)
    found = meters.saliency(5000, {})
    rows = torch.cat([x[0].double() for x in inputs])
    for values, expected in (
        (found.channels["a.weight"], rows.abs().mean(0)),
        (found.moments["a.weight"], rows.square().mean(0)),
        (found.statistic("a.weight", "rms"), rows.square().mean(0).sqrt()),
    ):
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), expected, rtol=3e-7, atol=0)


def test_one_wide_row_is_a_piece() -> None:
    x = torch.randn(2, CACHED_ELEMENTS + 1, generator=G)
    meters = Meters()
    meters.add("a.weight", 1, x)
    torch.testing.assert_close(meters.saliency(2, {}).channels["a.weight"], x.abs().mean(0))


def test_modules_with_one_input_share_a_statistic(live: LiveModel) -> None:
    channels = measured(live).channels
    layer = "model.layers.0"
    for readers in (
        [f"{layer}.self_attn.{name}_proj.weight" for name in "qkv"],
        [f"{layer}.mlp.{name}_proj.weight" for name in ("gate", "up")],
    ):
        assert len({channels[name].data_ptr() for name in readers}) == 1
    layers = live.model.config.num_hidden_layers
    own = {channels.data_ptr() for channels in channels.values()}
    assert len(own) == 6 * layers + 2  # two norms, q/k/v, o, gate/up, down; last norm and head


def test_a_changed_input_is_another_one() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    model = nn.Sequential(first, second)
    meters = Meters()
    x = torch.ones(3, 4)
    with torch.no_grad(), meters.watch([first, second], model):
        first(x)
        second(x.mul_(2))
    channels = meters.saliency(3, {}).channels
    assert [channels[f"{i}.weight"].tolist() for i in (0, 1)] == [[1.0] * 4, [2.0] * 4]


def test_an_activation_is_not_kept() -> None:
    linear = nn.Linear(4, 4)
    meters = Meters()
    with torch.no_grad(), meters.watch([linear], nn.Sequential(linear)):
        for value in (1.0, 3.0):
            x = torch.full((2, 4), value)
            linear(x)
            kept = ref(x)
            del x
            assert kept() is None
    assert meters.saliency(4, {}).channels["0.weight"].tolist() == [2.0] * 4


def test_measuring_makes_no_logits(live: LiveModel) -> None:
    called: list[nn.Module] = []
    head = live.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: called.append(module))
    assert "lm_head.weight" in measured(live).channels
    handle.remove()
    assert called == []


def test_no_module_waits_for_the_device(live: LiveModel) -> None:
    """A program waits when it reads a value (`_local_scalar_dense`); a plain pass does too."""
    decoder, meters = live.model.base_model, Meters()
    counts = []
    for modules in ([], decoder.modules()):
        with torch.no_grad(), CalledOperators() as called, meters.watch(modules, live.model):
            decoder(input_ids=BLOCKS[:1], use_cache=False)
        counts.append(called.counts)
    plain, watched = counts
    assert watched["abs"] - plain["abs"] == 6 * live.model.config.num_hidden_layers + 1
    assert watched["_local_scalar_dense"] == plain["_local_scalar_dense"]


def measured(live: LiveModel) -> Saliency:
    return measure(live.model, BLOCKS, lambda n: None)
