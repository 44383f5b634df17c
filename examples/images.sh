#!/usr/bin/env bash
# Images of your own: squares of two photos, a temple and a flower. Takes about 75 s on one core.
set -e
cd "$(dirname "$0")/.."

# Cut the two sample photos of scikit-learn into squares: a folder per class, and a folder of new ones
python - <<'PYTHON'
import pathlib, PIL.Image
from sklearn.datasets import load_sample_images
for name, pixels in zip(["temple", "flower"], load_sample_images().images):
    for number in range(200):
        top, left = number // 20 * 32, number % 20 * 32
        path = pathlib.Path("outputs/examples/new_photos" if number % 20 == 7 else f"outputs/examples/photos/{name}", f"{name}{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels[top : top + 32, left : left + 32]).save(path)
PYTHON
# Pretrain a small ResNet without labels, by SimCLR on two augmented views of each square
python train.py stage=pretrain experiment=images data.root=outputs/examples/photos data.size=32 data.batch_size=64
# Finetune it to classify the photo, with 20 labels per class
python train.py stage=finetune experiment=images data.root=outputs/examples/photos data.size=32 data.labels_per_class=20
# Predict the new squares; a line for each file
python train.py stage=predict experiment=images input=outputs/examples/new_photos
# Compare with random weights over 5 seeds; the line "report:" has the path of the page
python train.py stage=transfer experiment=images data.root=outputs/examples/photos data.size=32 pretrain.data.batch_size=64 \
  trainer.max_steps=50 trainer.val_check_interval=25 transfer.seeds=5 \
  transfer.labels=[5] transfer.arms=[pretrained,scratch,linear] transfer.budgets.converged=[]
