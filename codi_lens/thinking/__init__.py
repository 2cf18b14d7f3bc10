"""The thought loop: question, continuous thoughts, answer, with every hook alive."""
