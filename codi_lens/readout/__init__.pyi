from codi_lens.readout.attribution import answer_attribution as answer_attribution
from codi_lens.readout.attribution import answer_parts as answer_parts
from codi_lens.readout.decode import authors_text as authors_text
from codi_lens.readout.decode import decode_thoughts as decode_thoughts
from codi_lens.readout.reading import logit_lens as logit_lens
from codi_lens.readout.reading import top as top
from codi_lens.readout.steps import match_steps as match_steps
from codi_lens.readout.steps import step_matches as step_matches
