"""One section per question: its sentences, figures and tables."""
