"""Generated from `proto/world2vlm/v1` by `make proto`; edit the protos, not these."""
