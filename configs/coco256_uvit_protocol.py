r"""Text to image on MS-COCO 256x256 by U-ViT's protocol, so that a figure can stand beside published ones.

    python -m diffcurr.main --config=configs/coco256_uvit_protocol.py --job=encode --config.dataset=coco_captions \
        --config.dataset.data_dir=TRAIN2014 --config.dataset.annotations=captions_train2014.json \
        --config.codec.weights=VAE --out=LATENTS
    python -m diffcurr.main --config=configs/coco256_uvit_protocol.py --config.dataset.data_dir=LATENTS \
        --config.codec.weights=VAE --config.conditioning.encoder.folder=CLIP

Data: TRAIN2014 is the folder or zip of COCO's 82,783 training pictures of 2014, VAE the safetensors file of Stable
Diffusion's autoencoder, CLIP the folder of clip-vit-large-patch14. The encoded captions take 49 GB; conditioning.store
says where. It has not been run: no result is known. Bao et al. 2023 report a Fréchet distance of 5.95 for U-ViT-S/2
(deep: 5.48) on 30,000 captions of the validation pictures; encode those into a folder `val` beside to draw them.

Where the settings come from: Bao et al. 2023 and their public config: latents times 0.23010, one of about five captions
at random, no mirror images, all 77 states of CLIP ViT-L/14, AdamW with a rate of 2e-4 after 5,000 steps, betas of 0.9,
decay 0.03, batch 256, 1 M steps, average 0.9999, a tenth of the texts dropped, sqrt(beta) linear. Other than theirs:
the network is a DiT with as many blocks, as wide, as U-ViT-S/2 (13 of 512), whose attention to the text stands in the
place of their text tokens; 50 steps of DDIM in the place of DPM-Solver's; and the curriculum.
"""

from ml_collections import ConfigDict

from diffcurr.config import outline


def get_config() -> ConfigDict:
    config = outline()
    config.dataset.update(name="encoded", size=32, channels=4, classes=0, captions="stored")
    config.codec.update(name="kl", scale=0.23010)
    config.process.update(name="ddpm", schedule="sqrt_linear")
    config.conditioning.update(name="text", encoder={"name": "clip", "width": 768, "padding": True}, dropout=0.1)
    config.network.update(patch_size=2, hidden_size=512, depth=13, num_heads=8, remat="dots")
    config.dtype = "bfloat16"
    config.steps, config.batch_size = 1_000_000, 256
    config.optimizer.update(
        name="adamw", learning_rate=2e-4, warmup_steps=5000, b1=0.9, b2=0.9, weight_decay=0.03, clip_norm=0.0
    )
    config.ema.decay = 0.9999
    config.sampling.update(solver={"name": "ddim"}, steps=50, clip=0.0, guidance=2.0, samples=64)
    config.evaluation.samples = 30_000
    config.update(log_every=100, checkpoint_every=10_000, sample_every=10_000)
    return config
