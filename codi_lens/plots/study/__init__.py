"""The figures of the published study, and the corrected ones beside them."""
