"""What searches will take, before they run."""
