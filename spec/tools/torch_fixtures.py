"""Writes the small checkpoints of spec/fixtures that only PyTorch itself can make.

    python3 spec/tools/torch_fixtures.py spec/fixtures [plain views types lightning old]

`old` was written by PyTorch 1.13 (Debian's python3-torch), the others by 2.15. Element k of a tensor of n elements is
((37 k + n) mod 101 - 50) / 8, which every floating type holds exactly; spec/lua/torch_spec.lua makes the same.
"""
import collections
import sys

import numpy
import torch


def values(*shape, dtype=torch.float32):
    n = 1
    for size in shape:
        n *= size
    x = (torch.arange(n) * 37 + n) % 101 - 50
    if dtype.is_floating_point or dtype.is_complex:
        return (x.double() / 8).to(dtype).reshape(shape)
    return x.clamp(0, 1).to(dtype).reshape(shape) if dtype == torch.bool else x.abs().to(dtype).reshape(shape) if not dtype.is_signed \
        else x.to(dtype).reshape(shape)


class Node:
    """Stands for a value of a configuration, as omegaconf's AnyNode does."""
    def __init__(self, value):
        self._val = value


class Config(dict):
    """Stands for omegaconf's DictConfig: a class that a reader has never heard of, with state."""
    def __init__(self, content):
        super().__init__()
        self._content = {key: Config(item) if isinstance(item, dict) else Node(item) for key, item in content.items()}
        self._metadata = Node(None)


def foldflow_like():
    state = collections.OrderedDict()
    state["module.embedding_layer.node_embedder.0.weight"] = values(4, 3)
    state["module.score_model.trunk.ipa_0.head_weights"] = values(2)
    state["module.score_model.trunk.ipa_0.linear_q.weight"] = values(6, 4)
    state["module.score_model.trunk.ipa_0.linear_q.bias"] = values(6)
    weight = torch.nn.Parameter(values(4, 3))
    optimizer = torch.optim.Adam([weight], lr=1e-4)
    weight.grad = torch.ones(4, 3)
    optimizer.step()
    return {
        "model": state, "conf": Config({"model": {"ipa": {"c_s": 4, "no_heads": 2}, "dropout": 0.1}}),
        "optimizer": optimizer.state_dict(), "epoch": 3, "step": 1200,
    }


def plain(folder):
    torch.save(foldflow_like(), folder + "/torch_plain.pth")
    torch.save(foldflow_like(), folder + "/torch_plain5.pth", pickle_protocol=5)


def old(folder):
    torch.save(foldflow_like(), folder + "/torch_old.pth")
    torch.save(values(3), folder + "/torch_legacy.pth", _use_new_zipfile_serialization=False)


def views(folder):
    x, y = values(3, 4), values(24).reshape(2, 3, 4)
    tied = torch.nn.Parameter(values(2, 2))
    torch.save({
        "whole": x, "transposed": x.t(), "row": x[1], "column": x[:, 2], "corner": x[1:, 1:3], "every_other": x[:, ::2],
        "permuted": y.permute(2, 0, 1), "expanded": values(3, 1).expand(3, 5), "scalar": torch.tensor(1.25), "empty": torch.zeros(0, 3),
        "tied": tied, "tied_again": tied,
    }, folder + "/torch_views.pth")


def types(folder):
    names = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 uint16 uint32 uint64".split()
    tensors = {name: values(7, dtype=getattr(torch, name)) if name[:3] != "uin" or name == "uint8"
               else torch.tensor([0, 1, 2 ** (int(name[4:]) - 1) - 1]).to(getattr(torch, name)) for name in names}
    tensors["int16_low"] = torch.tensor([-32768, 32767], dtype=torch.int16)
    tensors["int8_low"] = torch.tensor([-128, 127], dtype=torch.int8)
    torch.save(tensors, folder + "/torch_types.pth")


def lightning(folder):
    state = collections.OrderedDict(("model." + name, values(*shape)) for name, shape in [
        ("node_embedder.linear.weight", (4, 4)), ("node_embedder.linear.bias", (4,)), ("trunk.ipa_0.head_weights", (2,))])
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    torch.save({
        "state_dict": state, "hyper_parameters": {"cfg": Config({"interpolant": {"min_t": 0.01}}), "folding_cfg": Config({})},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0, 1]}]}], "lr_schedulers": [],
        "callbacks": {"ModelCheckpoint": {"best_model_score": numpy.float64(0.25), "best_model_path": "a/b.ckpt", "seen": numpy.int64(7)}},
        "loops": {"fit": Node({"epoch": 1})}, "epoch": 4, "global_step": 1000, "pytorch-lightning_version": "2.0.4",
        "array": numpy.arange(6).reshape(2, 3), "fortran": numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)),
        "seed": 2 ** 62 + 1, "huge": 2 ** 100, "nothing": None, "flag": True, "tuple": (1, "a"), (1, 2): "a tuple for a key",
    }, folder + "/torch_lightning.ckpt")


if __name__ == "__main__":
    torch.manual_seed(1)
    for kind in sys.argv[2:] or ["plain", "views", "types", "lightning"]:
        globals()[kind](sys.argv[1])
