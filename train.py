"""The one entrypoint: `python train.py stage=pretrain`, and the whole story with no arguments."""

from warmstart.main import main

if __name__ == "__main__":
    main()
