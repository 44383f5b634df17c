#!/usr/bin/env bash
# A table of your own: tumours, of which few have a diagnosis. Takes about a minute on one core.
set -e
cd "$(dirname "$0")/.."

# Write a table with an empty diagnosis in 200 of 500 rows, and a second one of new rows
python - <<'PYTHON'
from pathlib import Path
from sklearn.datasets import load_breast_cancer
Path("outputs/examples").mkdir(parents=True, exist_ok=True)
table = load_breast_cancer(as_frame=True).frame.sample(frac=1, random_state=0)
table["diagnosis"] = table.pop("target").map({0: "malignant", 1: "benign"})
table[500:].drop(columns="diagnosis").to_csv("outputs/examples/new_tumours.csv", index=False)
table = table[:500]
table.loc[table.index[:200], "diagnosis"] = None
table.to_csv("outputs/examples/tumours.csv", index=False)
PYTHON
# Pretrain on all training rows, with and without a diagnosis
python train.py stage=pretrain experiment=table data.root=outputs/examples/tumours.csv data.target=diagnosis
# Finetune on the rows with a diagnosis
python train.py stage=finetune experiment=table data.root=outputs/examples/tumours.csv data.target=diagnosis
# Predict the new rows
python train.py stage=predict experiment=table input=outputs/examples/new_tumours.csv
# Compare with random weights and with a linear model over 5 seeds; the line "report:" has the path of the page
python train.py stage=transfer experiment=table data.root=outputs/examples/tumours.csv data.target=diagnosis \
  transfer.seeds=5 transfer.labels=[5] transfer.arms=[pretrained,scratch,linear] transfer.budgets.converged=[]
