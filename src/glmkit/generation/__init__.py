"""Text with blanks -> filled text: prompts, the decoding loop, and results."""
