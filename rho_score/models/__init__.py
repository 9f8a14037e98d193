import logging

# transformers imports torchao where it is installed, which logs what it lacks on this machine.
for _noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)
