"""The arguments of each sub-command, one file for one. Nothing here imports torch or nnU-Net before a command runs."""
