"""What fastnet is measured on."""
