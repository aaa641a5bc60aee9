"""Parts of the robot experiment of `examples/ceed_vla.py`: simulator, demonstrations, tokens, policy, roll-outs."""
