"""One side of spec/tools/torch_roundtrip.lua: makes a checkpoint with PyTorch, and compares what came back.

    python3 torch_roundtrip.py make FOLDER        FOLDER/theirs.pth
    python3 torch_roundtrip.py check FOLDER       FOLDER/ours.pth against it, read with weights_only=True (from PyTorch 2 on)
"""
import sys

import torch

WIDENED = {torch.uint8: torch.int32, torch.int8: torch.int32, torch.int16: torch.int32}
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
         torch.bool]


def random(dtype, *shape):
    if dtype.is_floating_point:          # any bits, NaN and denormals among them
        width = torch.tensor([], dtype=dtype).element_size()
        count = torch.Size(shape).numel()
        raw = torch.randint(0, 256, (count * width,), dtype=torch.uint8)
        return torch.frombuffer(bytearray(raw.numpy().tobytes()) or bytearray(width), dtype=dtype)[:count].reshape(shape).clone()
    if dtype == torch.bool:
        return torch.randint(0, 2, shape).bool()
    return torch.randint(torch.iinfo(dtype).min, torch.iinfo(dtype).max, shape, dtype=dtype)


def make(folder):
    torch.manual_seed(11)
    tensors = {}
    for dtype in TYPES:
        name = str(dtype)[6:]
        for shape in [(), (1,), (0, 3), (31,), (5, 7, 2), (1, 2, 1, 2, 1, 2, 1, 2)]:
            tensors[name + "/" + "x".join(map(str, shape))] = random(dtype, *shape)
        x = random(dtype, 6, 5, 4)
        tensors[name + "/transposed"] = x.permute(2, 0, 1)
        tensors[name + "/sliced"] = x[1:5:2, :, 1:3]
        tensors[name + "/expanded"] = x[:1].expand(3, 5, 4)
    torch.save({"tensors": tensors, "text": "é", "numbers": [1, -1, 255, 256, 65536, -2 ** 31, 2 ** 31, 2 ** 53, 0.1, -1e300],
                "nothing": None, "flags": [True, False], "nested": {"a": {"b": []}, "empty": {}}}, folder + "/theirs.pth")


def same(a, b):
    a = a.to(WIDENED.get(a.dtype, a.dtype)).contiguous()
    if a.dtype != b.dtype or a.shape != b.shape or not b.is_contiguous():
        return False
    width = a.element_size()
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[width]
    return torch.equal(a.view(bits), b.view(bits)) if a.numel() else True


def check(folder):
    # the restricted unpickler of 1.13 does not know Python's float, in its own files neither
    restricted = {"weights_only": True} if int(torch.__version__.split(".")[0]) > 1 else {}
    theirs = torch.load(folder + "/theirs.pth", **restricted)
    ours = torch.load(folder + "/ours.pth", **restricted)
    wrong = [name for name, x in theirs["tensors"].items() if name not in ours["tensors"] or not same(x, ours["tensors"][name])]
    wrong += [name for name in ours["tensors"] if name not in theirs["tensors"]]
    wrong += [key for key in theirs if key != "tensors" and theirs[key] != ours[key]]
    wrong += [] if list(theirs["tensors"]) == list(ours["tensors"]) else ["the order of names"]
    if wrong:
        sys.exit("PyTorch " + torch.__version__ + ": differs: " + ", ".join(wrong))
    print("PyTorch %s: %d tensors of %d types there and back, bit for bit" % (torch.__version__, len(ours["tensors"]), len(TYPES)))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](sys.argv[2])
