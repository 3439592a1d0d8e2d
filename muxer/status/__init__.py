"""What the process does now, in numbers and texts that commands and pages show."""
