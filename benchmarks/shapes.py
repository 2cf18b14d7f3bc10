"""The shape of Llama-3.2-1B, as the arguments of its transformers config."""

from __future__ import annotations

from typing import Any

LLAMA_1B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
SHORT_LLAMA_1B = LLAMA_1B | {"vocab_size": 128259, "max_position_embeddings": 2048}
"""With the three tokens of CODI, and positions for questions of GSM8K."""
