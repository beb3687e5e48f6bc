"""Fine-tuning on handwritten digits: run.py."""
