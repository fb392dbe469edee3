"""What turns features into probabilities, by hand: votes, a logistic regression, the model's own head."""

import numpy as np
import pytest
import torch

from stretchysnake import Scale, VideoMamba, VideoMambaConfig, save_model
from stretchysnake.eval.protocols.classifier import Classifier, load_classifier, save_classifier


def classifier(kind, names, **tensors):
    model = VideoMamba(VideoMambaConfig.named("nano", embed_dim=8, depth=1, num_classes=3)).eval()
    return Classifier(model=model, kind=kind, classes=names, scale=Scale(4, 32, 8), tensors=tensors)


def test_votes_of_three_neighbours_are_shares_and_a_tie_goes_to_the_nearest():
    angles = torch.tensor([0.0, 0.1, 0.2, 3.0, 3.1])
    known = torch.stack([angles.cos(), angles.sin()], 1)
    found = classifier("knn", ["a", "b", "c"], features=known, labels=torch.tensor([2, 1, 1, 0, 0]))
    query = torch.tensor([[1.0, 0.0], [-1.0, 0.05]])
    shares = found.probabilities(query)
    assert shares[0].tolist() == pytest.approx([0, 2 / 3, 1 / 3], abs=1e-3)
    assert shares[1].argmax() == 0 and shares.sum(1).tolist() == pytest.approx([1, 1])
    one_each = classifier(
        "knn", ["a", "b", "c"], features=known[:3], labels=torch.tensor([2, 1, 0])
    )
    assert one_each.probabilities(query[:1]).argmax() == 2


def test_probe_standardises_and_spreads_over_the_classes_it_knows():
    values = {
        "classes": torch.tensor([0, 2]),
        "weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double(),
        "bias": torch.tensor([0.5, 0.0]).double(),
        "mean": torch.tensor([1.0, -1.0]).double(),
        "scale": torch.tensor([2.0, 4.0]).double(),
    }
    found = classifier("probe", ["a", "b", "c"], **values).probabilities(torch.tensor([[3.0, 3.0]]))
    odds = np.exp([1.0 + 0.5, 2.0])
    assert found[0].tolist() == pytest.approx([odds[0] / odds.sum(), 0.0, odds[1] / odds.sum()])


def test_head_gives_its_softmax():
    own = classifier("finetune", ["a", "b", "c"])
    features = torch.randn(4, 8)
    logits = (features @ own.model.head.weight.T + own.model.head.bias).detach().double().numpy()
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(own.probabilities(features).numpy(), wanted, rtol=1e-5)


def test_a_classifier_on_disk_is_that_of_its_weights(tmp_path):
    made = classifier(
        "knn", ["a", "ä b"], features=torch.randn(4, 8), labels=torch.tensor([0, 1, 1, 0])
    )
    save_model(tmp_path / "weights.safetensors", made.model)
    save_classifier(tmp_path, made)
    found = load_classifier(tmp_path)
    assert (found.kind, found.classes, found.scale) == ("knn", ["a", "ä b"], Scale(4, 32, 8))
    query = torch.randn(3, 8)
    assert torch.equal(found.probabilities(query), made.probabilities(query))
    with torch.no_grad():
        made.model.head.bias.add_(1)
    save_model(tmp_path / "weights.safetensors", made.model)
    with pytest.raises(ValueError, match=r"weights\.safetensors is not the one it was made with"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no classifier"):
        load_classifier(tmp_path)
