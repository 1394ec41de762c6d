"""What commands share: their command line, console, set-up."""
