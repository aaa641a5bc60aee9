"""The model with a bag head: shapes, oracle, backbones, saving, bad input."""

import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_labels.models.llp_bp import AutoModelWithBagHead, BagHeadConfig
from tiny_text import save_backbone


def model(**settings):
    torch.manual_seed(0)
    return AutoModelWithBagHead(
        BagHeadConfig(num_features=3, **{"hidden_sizes": [6, 4], "bag_size": 5, **settings})
    ).eval()


def test_heads_read_the_embedding_and_the_mean_of_the_bag():
    net, x = model(), torch.randn(5, 3)
    bag = torch.tensor([0, 1, 1, 0, 1])
    out = net(features=x, bag=bag, num_bags=2)
    e = net.encoder(x)
    assert torch.equal(out.embeddings, e) and out.embeddings.shape == (5, 4)
    odds = net.instance_head(e)[:, 0]
    assert torch.allclose(out.logits.softmax(-1)[:, 1], odds.sigmoid(), atol=1e-6)
    means = torch.stack([e[bag == b].mean(0) for b in range(2)])
    assert torch.allclose(out.bag_logits, net.bag_head(net.bag_hidden(means).relu())[:, 0], atol=1e-6)
    assert net(features=x).bag_logits is None
    labels = torch.tensor([0, 1, 1, 0, 1])
    loss = net(features=x, labels=labels).loss
    assert torch.allclose(loss, torch.nn.functional.binary_cross_entropy_with_logits(odds, labels.float()), atol=1e-6)


def test_it_comes_back_by_its_own_class_and_by_the_auto_class(tmp_path):
    net, x = model(), torch.randn(2, 3)
    net.save_pretrained(tmp_path)
    for kind in (AutoModelWithBagHead, AutoModelForSequenceClassification):
        again = kind.from_pretrained(tmp_path)
        assert torch.allclose(again(features=x).logits, net(features=x).logits)


def test_a_text_backbone_is_read_at_its_real_tokens(tmp_path):
    net = AutoModelWithBagHead.from_backbone(str(save_backbone(tmp_path))).eval()
    ids, mask = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 0]])
    other = ids.clone()
    other[0, 3] = 9
    one, two = net(input_ids=ids, attention_mask=mask), net(input_ids=other, attention_mask=mask)
    assert torch.allclose(one.logits, two.logits, atol=1e-6)
    states = net.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.allclose(one.embeddings, states[:, :3].mean(1), atol=1e-6)
    assert str(tmp_path) not in net.config.to_json_string()  # where it came from is nobody's business


def test_an_image_backbone_gives_the_mean_over_its_map(tmp_path):
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    net = AutoModelWithBagHead.from_backbone(ResNetModel(config)).eval()
    pixels = torch.randn(2, 3, 16, 16)
    found = net(pixel_values=pixels)
    states = net.backbone(pixel_values=pixels).last_hidden_state
    assert found.embeddings.shape == (2, 8) and torch.allclose(found.embeddings, states.mean((2, 3)), atol=1e-6)
    net.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.allclose(again(pixel_values=pixels).logits, found.logits)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="reads `features`"):
        model()(input_ids=torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(Exception, match="hidden layer"):
        BagHeadConfig(num_features=2, hidden_sizes=[])
