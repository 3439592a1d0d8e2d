"""Where media are stored: WebDAV and S3 behind one interface."""
