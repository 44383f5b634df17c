"""The entry point: `python train.py stage=pretrain`; without arguments, a complete transfer."""

from warmstart.main import main

if __name__ == "__main__":
    main()
