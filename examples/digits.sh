#!/usr/bin/env bash
# Handwritten digits of scikit-learn: does pretraining without labels help? Takes about a minute on one core.
set -e
cd "$(dirname "$0")/.."

# Write the first five digits as image files
python - <<'PYTHON'
from pathlib import Path
from PIL import Image
from sklearn.datasets import load_digits
Path("outputs/examples/digits").mkdir(parents=True, exist_ok=True)
for number, pixels in enumerate(load_digits().images[:5]):
    Image.fromarray((pixels * 15.9).astype("uint8")).save(f"outputs/examples/digits/{number}.png")
PYTHON
# Pretrain a small network (an MLP) to remove noise from the digits; no labels are used
python train.py stage=pretrain experiment=digits
# Finetune it with 5 labels per class; it starts from the newest pretraining of this experiment
python train.py stage=finetune experiment=digits data.labels_per_class=5
# Predict what the files show: a line of JSON for each
python train.py stage=predict experiment=digits input=outputs/examples/digits
# Compare with random weights and a linear model, at 1 and 5 labels per class over 5 seeds; the line "report:" has the path of the page
python train.py stage=transfer experiment=digits \
  transfer.seeds=5 transfer.labels=[1,5] transfer.arms=[pretrained,scratch,linear] transfer.budgets.converged=[]
