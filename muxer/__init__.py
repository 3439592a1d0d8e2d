"""Recording Muxer: joins the call and the screen recordings of Genesys Interaction Recording into one playable file."""

__version__ = "0.2.0"
