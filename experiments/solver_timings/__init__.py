"""Every transport solver timed, and what each reaches."""
