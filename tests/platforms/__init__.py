"""Other systems and other versions than those of this machine."""
