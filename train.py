"""Run a stage: `python train.py stage=pretrain`; without arguments, the transfer on the built-in digits."""

from warmstart.main import main

if __name__ == "__main__":
    main()
