"""Which models of timm can be cut, and into how many blocks and stages; random weights, nothing is downloaded.

python benchmarks/cut_timm.py [NAME ...]
"""

import importlib
import sys
import time
from contextlib import suppress

import torch

from lasem.errors import ConfigError
from lasem.nets import from_timm

NAMES = """
resnet18 resnetv2_18 seresnet18 resnest14d res2net50_26w_4s regnety_002 densenet121 vgg11_bn inception_v3 dpn48b
cspresnet50 dla34 repvgg_a0 nfnet_l0 hrnet_w18_small tf_efficientnet_lite0 efficientnet_b0 tf_efficientnetv2_b0
mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small mnasnet_small ghostnet_050 convnext_atto
convnextv2_atto convmixer_768_32 edgenext_xx_small vit_tiny_patch16_224 deit_tiny_distilled_patch16_224
deit3_small_patch16_224 vit_small_patch14_dinov2 vit_small_patch16_dinov3 vit_base_patch16_siglip_224
beit_base_patch16_224 eva02_tiny_patch14_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 cait_xxs24_224
xcit_nano_12_p16_224 pit_ti_224 levit_128s twins_svt_small pvt_v2_b0 maxvit_rmlp_pico_rw_256 coatnet_pico_rw_224
mobilevit_xxs poolformer_s12 efficientformer_l1 fastvit_t8 crossvit_tiny_240 tiny_vit_5m_224 mvitv2_tiny
nest_tiny_jx visformer_tiny davit_tiny focalnet_tiny_srf hiera_tiny_224 mixer_s32_224 resmlp_12_224
gmlp_ti16_224
"""


def main(names: list[str]) -> None:
    """Print a line for each model: numbers of blocks and seconds, or why not."""
    torch.set_num_threads(1)
    if torch.version.cuda is None:  # torchvision may not import beside a CPU build, for want of two operators
        for name in ("nms", "qnms"):
            with suppress(RuntimeError):
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    timm = importlib.import_module("timm")
    done = dict.fromkeys(("auto", "stages"), 0)
    for name in names:
        config = timm.get_pretrained_cfg(name)
        size = config.input_size if config.fixed_input_size else (3, 96, 96)
        line = f"{name:34} {size[1]:4}"
        for way in done:
            started = time.perf_counter()
            try:
                net = from_timm(name, image_shape=size, blocks="auto" if way == "auto" else None)
                line += f"  {way} {net.depth:3} {time.perf_counter() - started:5.1f} s"
                done[way] += 1
            except ConfigError as error:
                line += f"\n  {way}: {error}\n"
        print(line, flush=True)
    print(", ".join(f"{way}: {number} of {len(names)}" for way, number in done.items()))


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES.split())
