"""What a training step costs on chips that need not be there."""
