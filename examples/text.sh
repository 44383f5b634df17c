#!/usr/bin/env bash
# Texts of your own: who speaks in Shakespeare's plays? Pretrains on all speeches. Takes about 75 s on one core.
set -e
cd "$(dirname "$0")/.."

# Write the plays as plain text, a table of the speeches of two characters, and a line to predict
python - <<'PYTHON'
import lzma, pandas, pathlib
from warmstart.data.sources.text.shakespeare import FILE
folder = pathlib.Path("outputs/examples")
(folder / "plays").mkdir(parents=True, exist_ok=True)
plays = lzma.decompress(FILE.read_bytes()).decode()
(folder / "plays/plays.txt").write_text(plays)
(folder / "lines.txt").write_text("My love is fair as stars.\nThe senate feeds you.\n")
speeches = [speech.partition(":\n")[::2] for speech in plays.split("\n\n")]
table = pandas.DataFrame(speeches, columns=["speaker", "speech"]).replace("\n", " ", regex=True)
table[table.speaker.isin(["ROMEO", "MENENIUS"])].to_csv(folder / "speeches.csv", index=False)
PYTHON
# Pretrain a small transformer on masked words
python train.py stage=pretrain experiment=text data=text_files data.root=outputs/examples/plays backbone=tiny trainer.max_epochs=5
# Finetune it to tell Romeo from Menenius
python train.py stage=finetune experiment=text data.root=outputs/examples/speeches.csv data.text=speech data.target=speaker backbone=tiny
# Predict the speaker of each line of a file
python train.py stage=predict experiment=text input=outputs/examples/lines.txt
# Compare with random weights over 5 seeds, pretraining on the table's own texts; the line "report:" has the path of the page
python train.py stage=transfer experiment=text data.root=outputs/examples/speeches.csv data.text=speech data.target=speaker backbone=tiny \
  trainer.max_steps=100 transfer.seeds=5 transfer.labels=[10] transfer.arms=[pretrained,scratch,linear] transfer.budgets.converged=[]
