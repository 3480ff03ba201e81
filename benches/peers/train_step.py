"""Training steps of a Llama in PyTorch on the CPU, f32: the same model, batch and optimizer as `iota bench step`.

usage: train_step.py SIZE eager|compile THREADS SECONDS

Prints one JSON line with the keys of `iota bench step --json`.
"""

import json
import os
import resource
import statistics
import sys
import time

name, mode, threads, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
os.environ["OMP_NUM_THREADS"] = str(threads)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

# dim, blocks, heads, ffn, vocab, seq, batch
SIZES = {"S": (256, 4, 4, 688, 256, 256, 8), "M": (512, 8, 8, 1376, 4096, 512, 4)}
DIM, BLOCKS, HEADS, FFN, VOCAB, SEQ, BATCH = SIZES[name]
HEAD = DIM // HEADS

torch.set_num_threads(threads)
torch.manual_seed(1)


def linear(into, out):
    layer = nn.Linear(into, out, bias=False)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(DIM, eps=1e-5), nn.RMSNorm(DIM, eps=1e-5)
        self.query, self.key, self.value, self.out = (linear(DIM, DIM) for _ in range(4))
        self.gate, self.up, self.down = linear(DIM, FFN), linear(DIM, FFN), linear(FFN, DIM)

    def forward(self, x, cos, sin):
        n = self.attention_norm(x)
        q, k, v = (part(n).view(BATCH, SEQ, HEADS, HEAD).transpose(1, 2) for part in (self.query, self.key, self.value))

        def turn(t):
            first, second = t.chunk(2, -1)
            return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)

        o = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        x = x + self.out(o.transpose(1, 2).reshape(BATCH, SEQ, DIM))
        n = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm, self.head = nn.RMSNorm(DIM, eps=1e-5), linear(DIM, VOCAB)
        frequency = 10_000.0 ** (-torch.arange(0, HEAD, 2).float() / HEAD)
        angle = torch.outer(torch.arange(SEQ).float(), frequency)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, VOCAB), targets.view(-1))


model = Llama()
# The fused optimizer is PyTorch's fastest on a CPU.
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
loss_of = torch.compile(model) if mode == "compile" else model
batches = torch.randint(0, VOCAB, (4, BATCH, SEQ + 1))


def step(number):
    batch = batches[number % len(batches)]
    begin = time.perf_counter()
    loss = loss_of(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    loss.item()
    return time.perf_counter() - begin


for number in range(2):
    step(number)
times, begin = [], time.perf_counter()
while len(times) < 5 or time.perf_counter() - begin < seconds:
    times.append(step(len(times)))
median = statistics.median(times)
print(
    json.dumps(
        {
            "peer": f"PyTorch {torch.__version__} {mode}",
            "config": name,
            "threads": threads,
            "steps": len(times),
            "tok_s": round(BATCH * SEQ / median, 1),
            "step_ms": round(1e3 * median, 1),
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    )
)
