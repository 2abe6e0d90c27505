"""One task of an encoder of transformers as an adapter that PEFT reads: its change of each matrix, and its head.

PEFT keeps the factors of [Hu2022]_ (``lasem.sharing.low_rank``): of a linear layer ``lora_A`` (r, inputs) and
``lora_B`` (out, r); of a table of embeddings (rows, width) the same of its transpose. A head that reads pooled tokens
is none of PEFT's ``modules_to_save``, for no class of transformers computes it so for all encoders: it has a file of
its own.
"""

import json

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lasem.errors import ConfigError
from lasem.learner.learner import Learner
from lasem.learner.model_folder import parts_of, to_bytes
from lasem.nets.cut_block import ChangedBlock, CutBlock
from lasem.nets.pretrained import as_in_transformers
from lasem.sharing import LowRank
from lasem.training import Named, part_of

CONFIG, PAGE = "adapter_config.json", "lasem.json"


def adapter_files(learner: Learner, name: str) -> dict[str, bytes]:
    """Return the files of a task's adapter by name; the page first, PEFT's configuration last.

    ``peft.PeftModel.from_pretrained(encoder, folder)`` reads them, the encoder being the one that the network was cut
    from, as ``transformers.AutoModel`` makes it. ``lasem.json`` says how its tokens are pooled and what the head in
    ``head.safetensors`` computes of them.

    Raises:
        ConfigError: if the network is no encoder of transformers, or the task has changed it by more than PEFT's LoRA
            can express.
    """
    net, info, source = learner.net, learner.info(name), learner.net.description()
    weights = learner.method.plain_weights(net, learner.model, name)
    if source.get("kind") != "transformers" or weights is None:
        raise ConfigError("The format peft is for encoders of transformers (--net hf:FOLDER) with plain weights.")
    structure, name_of, pooling = as_in_transformers(source)
    found: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    for i, block in enumerate(net.blocks):
        assert isinstance(block, CutBlock | ChangedBlock)
        for key, value in block.tensors_with(part_of(weights, f"layer.{i}")).items():
            if not torch.equal(value, start := block.module_tensors[key]):
                path, _, parameter = name_of(key).rpartition(".")
                factors = _factors(learner, name, i, key, weights)
                if factors is None or not torch.allclose(start + _product(*factors, start), value, atol=1e-6):
                    raise ConfigError(
                        f"Task '{name}' changes {path}.{parameter} of layer '{block.name}' by more than a product of "
                        f"low rank. Learn it with --sharing low-rank --sharing.train_shared false where it transfers, "
                        f"or with --net.rank."
                    )
                found[path] = structure.get_submodule(path), *factors
    wrong = next((path for path, (layer, *_) in found.items() if not _known(layer)), None)
    if wrong is not None or not found:
        what = f"the change of {wrong}" if wrong else "a task that changes nothing of its encoder"
        raise ConfigError(f"PEFT's LoRA has no {what}. Use the format onnx or torch.")
    rank = max(down.shape[0] for _, down, _ in found.values())
    tensors = {key: t for path, layer in found.items() for key, t in _in_peft(path, *layer, rank).items()}
    last = len(net.head.hidden)
    head = part_of(weights, "head")
    head |= {f"{part}.{last}": head[f"{part}.{last}"] / info.temperature for part in ("weight", "bias")}
    pooled = "the first token" if pooling == "first" else "the mean of tokens that are no padding"
    page = {
        "task": name,
        "file": CONFIG,
        "format": "peft",
        "classes": list(learner.classes(name)),
        "encoder": source.get("origin", ""),
        "length" if net.vocabulary else "image_shape": net.image_shape[2] if net.vocabulary else net.image_shape,
        "mean": info.mean,
        "std": info.std,
        "features": f"last_hidden_state, of which {pooled}",
        "head": "head.safetensors: features @ weight.0.T + bias.0"
        + "".join(f", relu, @ weight.{i}.T + bias.{i}" for i in range(1, last + 1)),
        "output": "logits, divided by the temperature already; softmax: probability",
        "temperature": info.temperature,
    }
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": list(found),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    tokenizer = net.vocabulary and net.vocabulary.tokenizer and net.vocabulary.tokenizer()
    return {
        PAGE: (json.dumps(page, indent=1) + "\n").encode(),
        **({"tokenizer.json": tokenizer.json.encode()} if tokenizer else {}),
        "head.safetensors": to_bytes(head),
        "adapter_model.safetensors": to_bytes(tensors),
        CONFIG: (json.dumps(config, indent=1) + "\n").encode(),
    }


def _factors(learner: Learner, name: str, layer: int, key: str, weights: Named) -> tuple[Tensor, Tensor] | None:
    """A and B of a kernel's change B A, which a low-rank mechanism or block has; None if there are none."""
    sharing, prefix = parts_of(learner.method).get("sharing"), f"layer.{layer}.{key}"
    held, scale = weights, 1.0
    if isinstance(sharing, LowRank) and f"{prefix}.change.up" in learner.model.own[name]:
        held, prefix, scale = learner.model.own[name], f"{prefix}.change", sharing.scale
    if f"{prefix}.up" not in held:
        return None
    return held[f"{prefix}.down"].cpu(), held[f"{prefix}.up"].cpu() * scale


def _product(down: Tensor, up: Tensor, like: Tensor) -> Tensor:
    return (up @ down).reshape(like.shape)


def _known(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Embedding) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _in_peft(path: str, layer: nn.Module, down: Tensor, up: Tensor, rank: int) -> dict[str, Tensor]:
    """Factors under PEFT's names, of one rank for all: rows of zeros change nothing."""
    missing, place = rank - down.shape[0], f"base_model.model.{path}"
    down, up = F.pad(down, (0, 0, 0, missing)), F.pad(up, (0, missing))
    if isinstance(layer, nn.Embedding):
        return {f"{place}.lora_embedding_A": up.T, f"{place}.lora_embedding_B": down.T}
    if isinstance(layer, nn.Conv2d):
        down, up = down.view(rank, layer.in_channels, *layer.kernel_size), up[:, :, None, None]
    return {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up}
