"""Envelopes of encrypted media: openssl encrypts them, a reader takes them apart."""
