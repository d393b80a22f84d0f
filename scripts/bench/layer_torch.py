"""The FlashIPA layer's mathematics in PyTorch, for scripts/bench/layer.lua: one JSON line a length.

usage: layer_torch.py THREADS REPEATS LENGTH...
"""
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

C_S, C_Z, H, C, P, PV, RANK = 256, 128, 8, 128, 8, 12, 2
D = C_Z // 4


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q = torch.nn.Linear(C_S, H * C)
        self.kv = torch.nn.Linear(C_S, 2 * H * C)
        self.qp = torch.nn.Linear(C_S, 3 * H * P)
        self.kvp = torch.nn.Linear(C_S, 3 * H * (P + PV))
        self.b = torch.nn.Linear(C_Z, H)
        self.down = torch.nn.Linear(C_Z, D)
        self.out = torch.nn.Linear(H * (C + 4 * PV + D), C_S)
        self.head = torch.nn.Parameter(torch.full((H,), 0.541324854612918))

    def points(self, x, n, R, t):
        x = torch.stack(x.split(n, -1), -1)
        return torch.einsum("lij,lpj->lpi", R, x) + t[:, None]

    def forward(self, s, R, t, z1, z2):
        L = s.shape[0]
        q = self.q(s).view(L, H, C)
        k, v = self.kv(s).view(L, H, 2 * C).split(C, -1)
        qp = self.points(self.qp(s), H * P, R, t).reshape(L, H, 3 * P)
        kvp = self.points(self.kvp(s), H * (P + PV), R, t).reshape(L, H, P + PV, 3)
        kp, vp = kvp.split([P, PV], 2)
        gamma = F.softplus(self.head)[:, None] * (1 / (3 * P * 4.5)) ** 0.5
        bias = -0.5 * gamma[:, 0] * kp.pow(2).sum((2, 3))
        b1, b2 = self.b(z1).transpose(1, 2), self.b(z2).transpose(1, 2)
        y1, y2 = self.down(z1), self.down(z2).reshape(L, 1, RANK * D).expand(L, H, RANK * D)
        ql = torch.cat([q, qp, b1], -1).transpose(0, 1)
        kl = torch.cat([k * (1 / (3 * C)) ** 0.5, gamma * kp.reshape(L, H, 3 * P), b2], -1).transpose(0, 1)
        vl = torch.cat([v, vp.reshape(L, H, 3 * PV), y2], -1).transpose(0, 1)
        a = torch.softmax(ql @ kl.transpose(1, 2) + bias.t()[:, None], -1)
        o, op, w = (a @ vl).transpose(0, 1).split([C, 3 * PV, RANK * D], -1)
        op = torch.einsum("lji,lhpj->lhpi", R, op.reshape(L, H, PV, 3) - t[:, None, None])
        norm = (op.pow(2).sum(-1) + 1e-8).sqrt()
        pair = torch.einsum("lrd,lhrd->lhd", y1, w.reshape(L, H, RANK, D))
        x, y, z = op.unbind(-1)
        return self.out(torch.cat([m.reshape(L, -1) for m in (o, x, y, z, norm, pair)], -1))


def median(repeats, f):
    times = []
    for i in range(repeats + 1):
        began = time.perf_counter()
        f()
        if i:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main():
    threads, repeats = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    layer = Layer()
    for L in map(int, sys.argv[3:]):
        s = torch.randn(L, C_S, requires_grad=True)
        R = torch.linalg.qr(torch.randn(L, 3, 3))[0]
        t = (torch.randn(L, 3) * 0.38).cumsum(0)
        z1 = torch.randn(L, RANK, C_Z, requires_grad=True)
        z2 = torch.randn(L, RANK, C_Z, requires_grad=True)

        def forward():
            with torch.no_grad():
                layer(s, R, t, z1, z2)

        def both():
            layer(s, R, t, z1, z2).sum().backward()

        print(json.dumps({"length": L, "forward": median(repeats, forward), "both": median(repeats, both),
                          "version": torch.__version__.split("+")[0]}), flush=True)


if __name__ == "__main__":
    main()
