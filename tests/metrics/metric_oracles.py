"""What the metrics are compared with: scikit-learn, and a plain loop over every distinct threshold."""

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score


def sklearn_values(scores, labels):
    """AUROC, AP and F1-max of flat scores; -inf, which scikit-learn refuses, becomes the lowest rank."""
    scores = np.asarray(scores, np.float64)
    scores = np.unique(scores, return_inverse=True)[1].astype(np.float64)  # ranks: finite, same order
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return roc_auc_score(labels, scores), average_precision_score(labels, scores), f1.max()


def brute_aupro(maps, masks, limit, ignore=None):
    """The curve of all distinct scores, one full pass over the images for each, region by region."""
    ignore = ignore if ignore is not None else [np.zeros(np.shape(m), bool) for m in maps]
    regions, normals = [], []
    for values, mask, hidden in zip(maps, masks, ignore, strict=True):
        numbered, count = label(mask, structure=np.ones((3, 3)))
        found = [values[(numbered == k) & ~hidden] for k in range(1, count + 1)]
        regions += [region for region in found if region.size]
        normals.append(values[(numbered == 0) & ~hidden])
    normal = np.concatenate(normals)
    fpr, pro = [0.0], [0.0]
    for t in np.unique(np.concatenate([normal, *regions]))[::-1]:
        fpr.append(np.mean(normal >= t))
        pro.append(np.mean([np.mean(region >= t) for region in regions]))
    area = 0.0
    for a, b, low, high in zip(fpr[:-1], fpr[1:], pro[:-1], pro[1:], strict=True):
        if a >= limit or a == b:
            continue
        cut = high if b <= limit else low + (high - low) * (limit - a) / (b - a)
        area += (min(b, limit) - a) * (low + cut) / 2
    return area / limit


def made_set(seed, images=6, size=24, levels=None, sizes=None, dtype=np.float64):
    """Maps, masks, image scores and labels with two normal images, blobs, and ties where `levels` says."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for image in range(images):
        shape = sizes[image] if sizes else (size, size)
        mask = np.zeros(shape, bool)
        if image >= 2:
            for _ in range(rng.integers(1, 5)):
                top, left = (int(rng.integers(0, n)) for n in shape)
                mask[top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)] = True
        values = rng.normal(size=shape) + 1.5 * mask
        if levels:
            values = np.round(values * levels) / levels
        maps.append(values.astype(dtype))
        masks.append(mask)
    labels = np.array([int(mask.any()) for mask in masks])
    return maps, masks, np.array([m.max() for m in maps], dtype), labels


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])
