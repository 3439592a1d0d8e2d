"""The protocol of GIR: RWS, RCS, the metadata, and which muxed files they ask for."""
