"""`python -m world2vlm`: the command `world2vlm` without the script."""

from world2vlm.cli import main

if __name__ == "__main__":
    main()
