"""SIM-CoT's decoder writes what its own forward pass gives, one thought and one token at a time."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_maker import Recipe, make
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from codi_lens import CheckpointError, CodiModel
from codi_lens.errors import CheckpointWarning, ProblemError
from codi_lens.readout import decode_with_auxiliary

QUESTIONS = [
    "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?",
    "A shop sells 3 pens. How many are left?",
]
pytestmark = pytest.mark.filterwarnings(
    "ignore:The tokenizer in:codi_lens.errors.CheckpointWarning"
)


class Made:
    """A checkpoint in SIM-CoT's layout: `decoder.*` beside `codi.*` and `prj.*`.

    With `narrow`, the decoder is a smaller model of its own, which `pj_in` leads into.
    """

    def __init__(self, folder: Path, backbone: str, narrow: bool) -> None:
        self.folder = make(folder, Recipe(backbone))
        config = AutoConfig.from_pretrained(self.folder)
        if narrow:
            config = copy.deepcopy(config)
            config.update({"n_embd": 24} if backbone == "gpt2" else {"hidden_size": 24})
            config.save_pretrained(self.folder / "decoder")
            said = json.loads((self.folder / "codi_config.json").read_text())
            said["auxiliary_base"] = "decoder"
            (self.folder / "codi_config.json").write_text(json.dumps(said))
        torch.manual_seed(3)
        self.decoder = AutoModelForCausalLM.from_config(config).eval()
        for parameter in self.decoder.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        self.enter = nn.Linear(48, 24) if narrow else nn.Identity()
        for parameter in self.enter.parameters():
            nn.init.normal_(parameter)
        self.path = self.folder / "pytorch_model.bin"
        self.codi = torch.load(self.path, weights_only=True)
        self.save({})

    def save(self, change: dict[str, Tensor]) -> None:
        parts: dict[str, nn.Module] = {"decoder": self.decoder, "pj_in": self.enter}
        held = {
            f"{name}.{key}": value
            for name, part in parts.items()
            for key, value in part.state_dict().items()
        }
        torch.save(self.codi | held | change, self.path)

    @torch.no_grad()
    def write(self, thought: Tensor, embedding: Tensor, eos: int, n: int) -> list[int]:
        """As the code trains it: the thought, then the model's embeddings, all through pj_in."""
        tokens: list[int] = []
        while len(tokens) < n:
            vectors = torch.cat([thought[None], embedding[tokens]])[None]
            logits: Any = self.decoder(inputs_embeds=self.enter(vectors)).logits
            token = int(logits[0, -1].argmax())
            if token == eos:
                break
            tokens.append(token)
        return tokens


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("backbone", ["gpt2", "llama", "qwen2"])
def test_what_is_written_is_what_the_decoder_gives(
    backbone: str, narrow: bool, tmp_path: Path
) -> None:
    made = Made(tmp_path / "m", backbone, narrow)
    model = CodiModel.from_pretrained(made.folder, auxiliary="keep")
    assert not [note for note in model.config.notes if "dropped" in note]
    run = model.think(QUESTIONS, max_new_tokens=1)
    table = decode_with_auxiliary(model, run, max_new_tokens=5)
    assert table["thought"].tolist() == [f"ct{i}" for i in range(6)] * 2
    embedding = model.lens.W_E
    for row in table.to_dict("records"):
        thought = run.thoughts[row["problem"], int(row["thought"][2:])]
        tokens = made.write(thought, embedding, model.config.eos, 5)
        assert row["text"] == model.tokenizer.decode(tokens, skip_special_tokens=True)
    assert table["text"].nunique() > 1
    with pytest.raises(ProblemError, match="max_new_tokens must be at least 0"):
        decode_with_auxiliary(model, run, max_new_tokens=-1)
    assert (decode_with_auxiliary(model, run, max_new_tokens=0)["text"] == "").all()


def test_writing_stops_at_eos(tmp_path: Path) -> None:
    made = Made(tmp_path / "m", "llama", narrow=False)
    model = CodiModel.from_pretrained(made.folder, auxiliary="keep")
    run = model.think(QUESTIONS[:1], max_new_tokens=1)
    (first, *_) = made.write(run.thoughts[0, 0], model.lens.W_E, model.config.eos, 1)
    head = made.decoder.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    head.weight.data[model.config.eos] = 3 * head.weight.data[first]
    made.save({})
    model = CodiModel.from_pretrained(made.folder, auxiliary="keep")
    assert decode_with_auxiliary(model, run)["text"][0] == ""


def test_a_kept_decoder_changes_nothing_and_is_not_saved(tmp_path: Path) -> None:
    made = Made(tmp_path / "m", "gpt2", narrow=False)
    with pytest.warns(CheckpointWarning, match="tensors of an auxiliary decoder"):
        dropped = CodiModel.from_pretrained(made.folder)
    kept = CodiModel.from_pretrained(made.folder, auxiliary="keep")
    assert dropped.auxiliary is None and kept.auxiliary is not None
    assert kept.fingerprint() == dropped.fingerprint()
    with pytest.warns(CheckpointWarning, match="auxiliary decoder of .* is not saved"):
        again = CodiModel.from_pretrained(kept.save_pretrained(tmp_path / "saved"))
    assert again.auxiliary is None and again.fingerprint() == kept.fingerprint()
    with pytest.raises(CheckpointError, match='load a SIM-CoT checkpoint with auxiliary="keep"'):
        decode_with_auxiliary(again, kept.think(QUESTIONS, max_new_tokens=1))


def test_a_decoder_that_cannot_be_kept_is_one_sentence(tmp_path: Path) -> None:
    made = Made(tmp_path / "m", "gpt2", narrow=False)
    bad = {
        r"auxiliary decoder does not fit .* unknown odd": {"decoder.odd": torch.ones(1)},
        r"holds pj_in as \{'weight': \(3, 4\)\}; a linear layer from": {
            "pj_in.weight": torch.ones(3, 4)
        },
        r"holds pj_out as \{'down.*; a linear layer from": {"pj_out.down.weight": torch.ones(3, 4)},
    }
    for message, change in bad.items():
        made.save(change)
        with pytest.raises(CheckpointError, match=message):
            CodiModel.from_pretrained(made.folder, auxiliary="keep")
    for message, value in (("NaN or infinite values in", torch.nan), (r"in torch\.int64", 1)):
        made.save({"decoder.transformer.wte.weight": torch.full((400, 48), value)})
        with pytest.raises(CheckpointError, match=message):
            CodiModel.from_pretrained(made.folder, auxiliary="keep")
    with pytest.raises(CheckpointError, match="tiny-gpt2 holds no auxiliary decoder that could"):
        CodiModel.from_pretrained("tiny-gpt2", auxiliary="keep")
    coconut = make(tmp_path / "c", Recipe(lora=(), files="Coconut", projection=None, sim_cot=True))
    with pytest.raises(CheckpointError, match="reads several thoughts at a time"):
        CodiModel.from_pretrained(coconut, coconut / "base", n_thoughts=2, auxiliary="keep")


def test_a_kept_decoder_moves_with_its_model(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", "llama", True)
    model = CodiModel.from_pretrained(made.folder, auxiliary="keep").to("bfloat16")
    loaded = CodiModel.from_pretrained(made.folder, auxiliary="keep", dtype="bfloat16")
    assert model.auxiliary is not None and loaded.auxiliary is not None
    for part in ("decoder", "enter", "leave"):
        a, b = (getattr(each.auxiliary, part).state_dict() for each in (model, loaded))
        assert all(torch.equal(a[name], b[name]) for name in b)
    a, b = (dict(each.decoder.named_buffers()) for each in (model.auxiliary, loaded.auxiliary))
    assert all(torch.equal(a[name], b[name]) for name in b)
    run = model.think(QUESTIONS, max_new_tokens=1)
    texts = [decode_with_auxiliary(each, run)["text"].tolist() for each in (model, loaded)]
    assert texts[0] == texts[1]
