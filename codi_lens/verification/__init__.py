"""Did it load right? The loaded model against an independent implementation of CODI."""
