"""The worker threads of this process: the queue, the attempts, the record of outcomes."""
