"""A damaged trace still renders and encodes, and every split of it is what training would see."""

import numpy as np
import pytest
from conftest import ROOT
from perturb_cases import AWKWARD, DONORS, LONG, random_reply

from longcot import batches, chat, rows
from longcot.perturb import CONDITIONS, WHOLE, damage, read_variant

NAMES = [name for name in CONDITIONS if name not in WHOLE[1:]] + ["digits50+delete33"]


@pytest.fixture(scope="module")
def template():
    from transformers import AutoTokenizer

    return chat.read_template(AutoTokenizer.from_pretrained(ROOT / "data_prep/rehearsal_base"))


@pytest.mark.parametrize("name", NAMES)
def test_every_sound_reply_is_still_learned_whole(template, name):
    variant, seen = read_variant(name), 0
    tokenizer = template.tokenizer
    for key, reply in [
        *AWKWARD.items(),
        ("long", LONG),
        *((n, random_reply(n)) for n in range(60)),
    ]:
        source = chat.told_format(reply)
        trace = rows.Trace("f:1", "s", "Think.", (("user", "q"), ("assistant", reply)))
        if source == "plain" or chat.fault(trace, source):
            continue
        seen += 1
        made = damage(reply, variant, str(key), DONORS).reply
        format = source if variant.has_thought else "plain"
        damaged = rows.Trace("f:1", "s", "Think.", (("user", "q"), ("assistant", made)))
        assert chat.fault(damaged, format) is None, key
        spans = chat.render(damaged, template, format, "from_data")
        assert spans[0] == chat.render(trace, template, source, "from_data")[0]  # the prompt
        ids, labels = batches.encode(spans, tokenizer)
        learned = labels != batches.IGNORED
        assert learned.any() and not learned[0] and np.array_equal(ids[learned], labels[learned])
        text = tokenizer.decode(ids[learned], skip_special_tokens=False)
        assert text.replace("\ufffd", "").endswith(template.end_of_turn)
        assert chat.split(spans[1].text.removesuffix(template.end_of_turn), format) == chat.split(
            chat.reply_text(made, None, format), format
        )
    assert seen > 30
