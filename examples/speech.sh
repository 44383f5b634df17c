#!/usr/bin/env bash
# Recordings of your own: spoken digits, written as WAV files. Takes about a minute on one core.
set -e
cd "$(dirname "$0")/.."

# Write 240 recordings, and a manifest: a table with a path and a label for each
python - <<'PYTHON'
import pathlib, soundfile
from warmstart.data.sources.audio.spoken_digits import read_packaged
table = read_packaged().query("text in ['one', 'two', 'three', 'four'] and recording < 10")
pathlib.Path("outputs/examples/recordings").mkdir(parents=True, exist_ok=True)
for row in table.itertuples():
    soundfile.write(f"outputs/examples/recordings/{row.file}.wav", row.audio, row.rate)
table.assign(path="recordings/" + table.file + ".wav", label=table.text)[["path", "label", "speaker"]].to_csv("outputs/examples/manifest.csv", index=False)
PYTHON
# Pretrain a small transformer on masked spectrograms; no labels are used
python train.py stage=pretrain experiment=recordings data.root=outputs/examples/manifest.csv data.target=label data.cluster=speaker trainer.max_epochs=20
# Finetune it to classify the words; no speaker is in two of the training, validation and test rows
python train.py stage=finetune experiment=recordings data.root=outputs/examples/manifest.csv data.target=label data.cluster=speaker
# Predict the word of some recordings
python train.py stage=predict experiment=recordings input=outputs/examples/recordings
# Compare with random weights over 5 seeds; the line "report:" has the path of the page
python train.py stage=transfer experiment=recordings data.root=outputs/examples/manifest.csv data.target=label data.cluster=speaker \
  pretrain.trainer.max_epochs=20 trainer.max_steps=100 trainer.val_check_interval=50 transfer.seeds=5 \
  transfer.labels=[5] transfer.arms=[pretrained,scratch,linear] transfer.budgets.converged=[]
