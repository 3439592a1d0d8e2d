"""What the operating system gives: processes, files, locks, threads, secrets out of sight."""
