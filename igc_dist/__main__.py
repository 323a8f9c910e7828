"""`python -m igc_dist`: the door. What a shell sees is in `igc_dist.cli`."""

from igc_dist.cli import main as shell

main = shell.main

if __name__ == "__main__":
    main()
