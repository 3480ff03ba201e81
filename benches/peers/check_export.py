"""Compares a trained model's files with what others make of them: logits in transformers, tensors in gguf, numbers in
tensorboard.

usage: check_export.py logits HF_FOLDER            prints "logits: ..." and exits 0 if they agree
       check_export.py gguf HF_FOLDER GGUF_FILE    prints "gguf: ..." and exits 0 if every tensor is equal
       check_export.py events RUN_FOLDER           prints "events: ..." and exits 0 if they say what metrics.jsonl says
"""

import json
import pathlib
import sys

RTOL, ATOL = 1e-4, 1e-5


def logits(folder):
    import torch
    import transformers

    reference = json.loads((folder / "reference.json").read_text())
    model = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        found = model(torch.tensor([reference["token_ids"]])).logits[0]
    wanted = torch.tensor(reference["logits"])
    difference = (found - wanted).abs()
    equal = torch.allclose(found, wanted, rtol=RTOL, atol=ATOL) and found.argmax(-1).equal(wanted.argmax(-1))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "Grüße, world:\n  12 crabs 🦀"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=False)
    print(
        f"logits: {tuple(found.shape)} of transformers {transformers.__version__}, torch {torch.__version__}: "
        f"largest difference {difference.max():.2e} at logits up to {wanted.abs().max():.2f}, "
        f"rtol {RTOL} atol {ATOL}: {'agree' if equal else 'DIFFER'}; "
        f"tokenizer: {len(ids)} tokens for {len(text.encode())} bytes, {'comes back' if back == text else 'DIFFERS'}"
    )
    return equal and back == text


def gguf(folder, path):
    import gguf as library
    import numpy
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    theirs = {}
    for shard in sorted(folder.glob("model-*.safetensors")):
        theirs.update(load_file(shard))
    names = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    reader = library.GGUFReader(path)
    ours = {tensor.name: tensor for tensor in reader.tensors}
    different = []
    for name, values in theirs.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            key = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            heads = config[key]
            rows, columns = values.shape
            values = values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        tensor = ours.pop(names.get_name(name, try_suffixes=(".weight",)), None)
        if tensor is None or not numpy.array_equal(tensor.data.reshape(values.shape), values):
            different.append(name)
    fields = {field: reader.get_field(field).contents() for field in reader.fields if field.startswith("llama.")}
    wanted = {
        "llama.block_count": config["num_hidden_layers"],
        "llama.embedding_length": config["hidden_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.context_length": config["max_position_embeddings"],
    }
    different += [key for key, value in wanted.items() if fields.get(key) != value]
    scaling = config["rope_parameters"]
    if scaling["rope_type"] == "llama3":
        divisors = ours.pop("rope_freqs.weight", None)
        wanted_divisors = frequency_divisors(numpy, scaling, config["head_dim"])
        if divisors is None or not numpy.allclose(divisors.data, wanted_divisors, rtol=1e-6, atol=0):
            different.append("rope_freqs.weight")
    different += sorted(ours)
    tokens = len(reader.get_field("tokenizer.ggml.tokens").contents())
    print(
        f"gguf: {len(theirs)} tensors and {tokens} tokens read back, "
        + (f"DIFFERENT: {', '.join(different)}" if different else "every tensor equal")
    )
    return not different and tokens == config["vocab_size"]


def frequency_divisors(numpy, scaling, head_dim):
    """What llama.cpp's converter writes: by wavelengths, pair by pair."""
    old = scaling["original_max_position_embeddings"]
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    wavelengths = 2 * numpy.pi * scaling["rope_theta"] ** (numpy.arange(0, head_dim, 2) / head_dim)
    smooth = (old / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    divisors = numpy.where(wavelengths < old / high, 1.0, numpy.where(wavelengths > old / low, factor, between))
    kinds = [int((divisors == 1).sum()), int((divisors == factor).sum())]
    assert min(*kinds, len(divisors) - sum(kinds)) > 0, "the model is to hold pairs of every kind"
    return divisors


def events(folder):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    # Checksums included: the loader raises on a record that is not whole.
    (file,) = folder.glob("events.out.tfevents.*")
    found = {}
    records = 0
    for event in EventFileLoader(str(file)).Load():
        records += 1
        for value in event.summary.value:
            number = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
            found[event.step, value.tag] = number
    names = {
        "loss": "loss/train", "lr": "lr", "gradient_norm": "gradient_norm",
        "held_out": "loss/held_out", "bits_per_byte": "bits_per_byte",
    }
    wanted = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(line)
        wanted.update({(line["step"], tag): line[key] for key, tag in names.items() if key in line})
    differ = [key for key, value in wanted.items() if abs(found.get(key, float("inf")) - value) > 1e-6 * abs(value)]
    print(
        f"events: {records} records read by tensorboard, {len(wanted)} numbers of metrics.jsonl: "
        + (f"DIFFERENT: {differ}" if differ else "all there")
    )
    return not differ and len(wanted) >= 32


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    check = {"logits": logits, "gguf": gguf, "events": events}[what]
    sys.exit(0 if check(*map(pathlib.Path, paths)) else 1)
