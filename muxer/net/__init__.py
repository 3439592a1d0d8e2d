"""What all clients share: TLS, streams to disk, time limits, the circuit breaker."""
